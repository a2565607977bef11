/* Many clients of one stream of Server-Sent Events, in one loop that costs little.
 *
 *     sse_swarm HOST PORT PATH CLIENTS
 *
 * In PATH each %d becomes the client's number. Prints READY once every client has the head of an answer with
 * status 200, and ends at the end of its standard input, with one line of JSON: how many events with a
 * "timestamp": came, the fewest and the most of a client, and the milliseconds from there to here.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 1024
#define CLIENTS_PER_ADDRESS 20000 /* there are 28,000 ports to connect from */

struct client {
    int socket, answered, length;
    long events;
    char line[LINE_BYTES];
};

static const char KEY[] = "\"timestamp\":";
static double *latencies;
static size_t count, room;
static int answered, refused;

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void keep(double latency) {
    if (count == room) {
        room = room ? room * 2 : 1 << 16;
        latencies = realloc(latencies, room * sizeof *latencies);
        if (!latencies) fail("realloc");
    }
    latencies[count++] = latency;
}

static void take_line(struct client *client, double now) {
    const char *stamp;
    client->line[client->length] = 0;
    if (!client->answered) {
        client->answered = 1;
        if (strncmp(client->line, "HTTP/1.1 200", 12) == 0) answered++; else refused++;
    } else if (strncmp(client->line, "data:", 5) == 0 && (stamp = strstr(client->line, KEY))) {
        client->events++;
        keep(now - strtod(stamp + sizeof KEY - 1, NULL) * 1e3);
    }
    client->length = 0;
}

static void take(struct client *client, const char *bytes, const char *end) {
    double now = now_ms();
    while (bytes < end) {
        const char *newline = memchr(bytes, '\n', end - bytes);
        size_t length = (newline ? newline : end) - bytes, free_bytes = LINE_BYTES - 1 - client->length;
        if (length > free_bytes) length = free_bytes; /* the rest of a long line says nothing here */
        memcpy(client->line + client->length, bytes, length);
        client->length += length;
        if (!newline) return;
        take_line(client, now);
        bytes = newline + 1;
    }
}

static void connect_client(struct client *client, int number, struct sockaddr_in *to, const char *path, int loop) {
    char url[512], request[1024];
    struct sockaddr_in from = {.sin_family = AF_INET};
    struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = client};
    const char *place = strstr(path, "%d");
    if (place) snprintf(url, sizeof url, "%.*s%d%s", (int)(place - path), path, number, place + 2);
    else snprintf(url, sizeof url, "%s", path);
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n", url);
    client->socket = socket(AF_INET, SOCK_STREAM, 0);
    if (client->socket < 0) fail("socket");
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + number / CLIENTS_PER_ADDRESS);
    if (bind(client->socket, (void *)&from, sizeof from)) fail("bind");
    if (connect(client->socket, (void *)to, sizeof *to)) fail("connect");
    if (write(client->socket, request, length) != length) fail("write");
    fcntl(client->socket, F_SETFL, O_NONBLOCK);
    if (epoll_ctl(loop, EPOLL_CTL_ADD, client->socket, &wanted)) fail("epoll_ctl");
}

static int by_value(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double at(double share) {
    return count ? latencies[(size_t)((count - 1) * share)] : -1;
}

int main(int arguments, char **argument) {
    static char bytes[1 << 18];
    struct epoll_event events[512];
    struct rlimit files;
    int number, ready = 0, closed = 0, loop = epoll_create1(0);
    if (arguments != 5) {
        fprintf(stderr, "usage: sse_swarm HOST PORT PATH CLIENTS\n");
        return 2;
    }
    int clients = atoi(argument[4]);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argument[2]))};
    inet_pton(AF_INET, argument[1], &to.sin_addr);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    struct client *all = calloc(clients, sizeof *all);
    for (number = 0; number < clients; number++) connect_client(&all[number], number, &to, argument[3], loop);
    struct epoll_event input = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(loop, EPOLL_CTL_ADD, 0, &input)) fail("epoll_ctl");
    for (int over = 0; !over;) {
        int found = epoll_wait(loop, events, 512, -1);
        for (int each = 0; each < found; each++) {
            struct client *client = events[each].data.ptr;
            if (!client) {
                if (read(0, bytes, sizeof bytes) <= 0) over = 1;
                continue;
            }
            ssize_t got = read(client->socket, bytes, sizeof bytes);
            if (got > 0) take(client, bytes, bytes + got);
            else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
                closed++;
                close(client->socket);
            }
        }
        if (!ready && answered + refused + closed >= clients) {
            ready = 1;
            printf("READY %d\n", answered);
            fflush(stdout);
        }
    }
    long fewest = clients ? all[0].events : 0, most = 0;
    for (number = 0; number < clients; number++) {
        if (all[number].events < fewest) fewest = all[number].events;
        if (all[number].events > most) most = all[number].events;
    }
    qsort(latencies, count, sizeof *latencies, by_value);
    printf("{\"answered\":%d,\"closed\":%d,\"events\":%zu,\"fewest\":%ld,\"most\":%ld,"
           "\"p50\":%.3f,\"p99\":%.3f,\"max\":%.3f}\n",
           answered, closed, count, fewest, most, at(.5), at(.99), at(1));
    return 0;
}
