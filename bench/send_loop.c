/* The bare loop: one send() a client and event. Nothing that writes each event to each client can be cheaper.
 *
 *     send_loop PORT CLIENTS
 *
 * Sends each line of its standard input as the data of one event to all clients.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int arguments, char **argument) {
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    static char line[4096], event[4200];
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct rlimit files;
    if (arguments != 3) return 2;
    int clients = atoi(argument[2]);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(atoi(argument[1]))};
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&here, sizeof here) || listen(listener, 4096)) {
        perror("listen");
        return 1;
    }
    int *sockets = calloc(clients, sizeof *sockets);
    for (int number = 0; number < clients; number++) {
        sockets[number] = accept(listener, NULL, NULL);
        setsockopt(sockets[number], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (read(sockets[number], event, sizeof event) <= 0) return 1;
        if (write(sockets[number], head, sizeof head - 1) < 0) return 1;
    }
    while (fgets(line, sizeof line, stdin)) {
        int length = snprintf(event, sizeof event, "id: 0123456789abcdef-1234567\nevent: task_status\ndata: %s\n", line);
        for (int number = 0; number < clients; number++) send(sockets[number], event, length, MSG_NOSIGNAL);
    }
    return 0;
}
