-- Applies one batch of one worker: offsets, run rules, records, log and channel in one step, so
-- that no reader can see a state that the log does not tell, nor the other way round.
--
-- It never parses JSON (cjson cuts timestamps and breaks large integers): what it must know comes
-- as arguments, and it writes the head of each event itself.
--
--   event    {"type":"task_status","status":S,"worker":W,"offset":N,"previous":P,"message":M,REST}
--              with "progress":{…}, before REST and its text as the message, where a task reports any
--   record   the event with the members of the extra behind REST
--   runs     a line a run, the shown one last: run TAB rank TAB status TAB worker TAB offset TAB M
--              TAB where REST begins and ends in the record   (the shown one)
--              TAB REST TAB extra                             (one that stands behind it)
--            and first, with its time as its offset, one that has ended while others are open
--   timeline [{"status":S,"at":seconds,"worker":W},…]         every step of every run of the id
--
-- KEYS  1 log  2 runs  3 active_tasks  4 waiting_tasks  5 finished_tasks  6 finished
--       7 workers  8 leases  9 events  10 progress  11 timelines  12 counters  13 depths
-- ARGV  1 channel  2 an epoch to use if one is needed  3 worker id
--       4 batch number; 0 for a child of the worker's pool, which only reports progress
--       5 lease in seconds, 0 gives it up  6 log's length  7 history's length  8 history's age in s
--       9  M of a step that has none, where the task is reserved, scheduled, active; TAB between them
--       10… operations, TAB between their parts
--         task run worker(JSON) task-id, steps, FACTS, extra(JSON object)
--           steps of a run, LF between them: rank status time [M MOVING]; FACTS and MOVING are REST;
--           what the run has come to already is left as it is
--         tasks run worker task-id FACTS extra steps, run …   with US between their parts: several of those
--         end  the same; only if that run is still open
--         lost the same; only if it is open and the lease of its worker has ended; then counted, too:
--           other TAB field, as below, or TAB alone
--         progress {"message":M,…} task-id
--         worker REST          the record of this worker
--         gone worker-id REST  the record of another one, whose lease has ended
--         forget worker-id     a worker that ended long ago
--         depth JSON queue     how many messages wait in a queue, as the broker of this worker says
--         undepth queue        that nobody has measured for long
--         uncount field        a counter of a host that is gone
--         count n other field  adds to a counter; to `other` where there are too many counters
-- Returns epoch, offset of the last event, verdict: "applied", "duplicate", "unknown" (applied, but
-- Redis held no lease of this worker: unless this batch begins with it, say all that you have) or
-- "refused" (not applied: Redis has no record of this worker in which to keep the batch's number, so
-- the same call made twice would count twice; send it again behind the record); and the error of a
-- by-product that could not be written (channel, counters, depths).
--
-- A script that fails is not rolled back. So whatever may fail comes before what counts: rights and types
-- are tried, all is worked out, and the log is written before the state. What is written earlier (progress,
-- depths, the end of other workers) is the same when it is written again.

local LOG, RUNS, ACTIVE, WAITING, FINISHED_TASKS, FINISHED, WORKERS, LEASES, EVENTS,
  PROGRESS, TIMELINES, COUNTERS, DEPTHS = unpack(KEYS)
local channel, new_epoch, worker_id, batch = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local lease, log_max = tonumber(ARGV[5]), ARGV[6]
local history_max, history_ttl = tonumber(ARGV[7]), tonumber(ARGV[8])
local WAITING_RANK, ACTIVE_RANK, ENDED_RANK = 1, 2, 3
local call, find, format, match, sub = redis.call, string.find, string.format, string.match, string.sub

-- What nobody asks for any more must not fill Redis.
local TIMELINE_BYTES, PROGRESS_MAX, COUNTERS_MAX = 4000, 10000, 50000
-- Seconds within which what a task says of its progress may overtake what it said before: its process
-- connects (2) and tries again (5).
local LATE_PROGRESS = 10

local now = call('TIME')
now = tonumber(now[1]) + tonumber(now[2]) / 1e6

-- The epoch. A server that was restored from an older snapshot, or a promoted replica, would give
-- offsets out a second time and viewers would pass over events silently: its run id is another.
local info = call('INFO', 'server')
local run_id = match(info, '^%w+', find(info, 'run_id:', 1, true) + 7)
local log = call('HMGET', LOG, 'epoch', 'offset', 'run_id')
local epoch, offset = log[1], tonumber(log[2])
-- An entry beyond the last offset is another's, or of a batch that broke off; the next would be refused.
local tail = call('XREVRANGE', EVENTS, '+', format('%d', (offset or 0) + 1), 'COUNT', 1)[1]
tail = tail and tonumber(match(tail[1], '^%d+')) or 0
if not epoch or not offset or log[3] ~= run_id or tail > offset then
  -- Offsets go on from what is known, so that no record stands ahead of the log.
  epoch, offset = new_epoch, math.max(offset or 0, tail)
  call('DEL', EVENTS)
  call('HSET', LOG, 'epoch', epoch, 'offset', offset, 'run_id', run_id)
end

-- A call whose answer was lost is sent again under its number.
local WORKER_HEAD = '{"type":"worker_status","batch":'
local worker_record = call('HGET', WORKERS, worker_id)
local last_batch = worker_record and tonumber(match(worker_record, '^' .. WORKER_HEAD .. '(%d+)'))
if not last_batch then worker_record = nil end  -- somebody else's
local numbered = batch > 0
if numbered and last_batch and batch <= last_batch then
  return {epoch, offset, 'duplicate'}
end
if numbered and not worker_record and sub(ARGV[10] or '', 1, 7) ~= 'worker\t' then
  return {epoch, offset, 'refused'}
end
local verdict = worker_record and call('ZSCORE', LEASES, worker_id) and 'applied' or 'unknown'

-- Each right and each type that is needed below, without any effect. XADD has no such form.
call('HSET', LOG, 'epoch', epoch)  -- first: a Redis that is full refuses only a script's first write
for _, hash in ipairs({RUNS, ACTIVE, WAITING, FINISHED_TASKS, WORKERS, PROGRESS, TIMELINES}) do
  call('HDEL', hash, '')
end
for _, set in ipairs({FINISHED, LEASES}) do
  call('ZADD', set, 'XX', 0, '')
  call('ZREM', set, '')
end
call('ZCARD', FINISHED)
call('ZRANGE', FINISHED, 0, 0)
call('ZRANGEBYSCORE', FINISHED, '-inf', '-inf', 'LIMIT', 0, 1)
call('XTRIM', EVENTS, 'MAXLEN', '~', log_max)

-- A by-product that cannot be written holds up nothing.
local trouble
local function attempt(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  trouble = trouble or command .. ' ' .. key .. ': ' .. reply.err
end

local first = offset + 1
local ids, events, extras = {}, {}, {}
local function emit(id, event, extra)
  local last = #ids + 1
  ids[last], events[last], extras[last] = id, event, extra
end

-- What events of one status and worker have in common: up to the offset, from there to the message, and
-- as a step in a timeline.
local shapes = {}
local function shape_of(status, worker)
  local of_worker = shapes[worker]
  if not of_worker then
    of_worker = {}
    shapes[worker] = of_worker
  end
  local shape = of_worker[status]
  if not shape then
    local shown = '"status":"' .. status .. '","worker":' .. worker
    shape = {
      head = '{"type":"task_status",' .. shown .. ',"offset":',
      previous = ',"previous":{' .. shown .. '},"message":',
      first_step = '[{"status":"' .. status .. '","at":',
      next_step = ',{"status":"' .. status .. '","at":',
      step_end = ',"worker":' .. worker .. '}',
    }
    of_worker[status] = shape
  end
  return shape
end

-- The record of a run that this batch has shown. It is not cut out of its event, nor that out of its parts:
-- each string that is made costs a hash over all of its bytes, so each is made in one go.
local function record_of(run)
  if run.extra == '{}' then return run.event end
  return run.shape.head .. run.offset .. run.previous .. run.said .. run.between .. run.facts .. run.moving ..
    ',' .. sub(run.extra, 2)
end

-- tasks: task id → what this batch knows of it. runs: the open ones, the shown one last; over: how
-- one of them has ended meanwhile; finished: that it has ended, as Redis holds it or as a run of this
-- batch; was: the hash that held its record before; steps: what this batch adds to its timeline.
-- A run has from and to where its text stands in a record that Redis holds, event and what that is made of
-- where this batch has shown it, and neither where it stands behind another one.
local tasks, touched = {}, {}

local LINE = '^' .. string.rep('([^\t]*)\t', 7) .. '(.*)$'
local function split_line(line)
  local id, rank, status, worker, run_offset, message, from, to = match(line, LINE)
  if not id then error('no line of a run') end
  local run = {id = id, rank = tonumber(rank), status = status, worker = worker, offset = run_offset,
    message = message}
  if tonumber(from) then
    run.from, run.to = tonumber(from), tonumber(to)
  else
    run.facts, run.moving, run.extra = '', from, to
  end
  return run
end

local function hash_of(rank)
  return rank == ACTIVE_RANK and ACTIVE or WAITING
end

local any_progress = call('HLEN', PROGRESS) > 0

-- One call for all: a call costs more than what it does. Lua unpacks some thousand values.
local function fetch(hash, fields)
  local values = {}
  for from = 1, #fields, 1000 do
    local part = call('HMGET', hash, unpack(fields, from, math.min(from + 999, #fields)))
    for place = 1, #part do values[from + place - 1] = part[place] end
  end
  return values
end

local function load_tasks()
  local unknown, known = {}, {}
  local lines_of = fetch(RUNS, touched)
  for place = 1, #touched do
    local id, lines = touched[place], lines_of[place]
    local task = tasks[id]
    if lines then
      for line in string.gmatch(lines, '[^\n]+') do
        local run = split_line(line)
        if run.rank == ENDED_RANK then
          run.time, task.over = run.offset, run
        else
          task.runs[#task.runs + 1] = run
        end
      end
      task.was = hash_of(task.runs[#task.runs].rank)
      known[#known + 1] = id
    else
      unknown[#unknown + 1] = id
    end
  end
  local records = fetch(FINISHED_TASKS, unknown)
  for place = 1, #unknown do
    if records[place] then
      local id = unknown[place]
      tasks[id].finished, tasks[id].was_finished = records[place], true
      known[#known + 1] = id
    end
  end
  local timelines = fetch(TIMELINES, known)
  for place = 1, #known do tasks[known[place]].timeline = timelines[place] or nil end
  if not any_progress then return end
  local progress = fetch(PROGRESS, touched)
  for place = 1, #touched do tasks[touched[place]].progress = progress[place] or nil end
end

local function finished_as(task)
  local finished = task.finished
  if type(finished) == 'table' then return finished.status, finished.worker end
  if not finished then return nil end
  return match(finished, '^{"type":"task_status","status":"(%a+)","worker":(.-),"offset":')
end

local function previous_of(task)
  local shown = task.runs[#task.runs]
  if shown then return (shown.shape or shape_of(shown.status, shown.worker)).previous end
  local status, worker = finished_as(task)
  if not status then return ',"previous":null,"message":' end
  return shape_of(status, worker).previous
end

-- The text of a progress object, as JSON; it is its first member where there is one.
local function message_of(progress)
  if sub(progress, 1, 12) ~= '{"message":"' then return nil end
  local at = 13
  while true do
    at = find(progress, '["\\]', at)
    if sub(progress, at, at) == '"' then return sub(progress, 12, at) end
    at = at + 2
  end
end

-- Makes the event of a run, and what its record is made of; previous is what viewers saw before it.
local function show(task, run, previous)
  offset = offset + 1
  local shape, at = run.shape or shape_of(run.status, run.worker), format('%d', offset)
  local said, between = run.message, ','
  if task.progress and run.rank == ACTIVE_RANK then
    said, between = message_of(task.progress) or said, ',"progress":' .. task.progress .. ','
    local length = #shape.head + #at + #previous + #said + #between + #run.facts + #run.moving
    -- Progress may take the room that long arguments had.
    if length + 1 + #run.extra > 1024 then run.extra = '{}' end
  end
  local event = shape.head .. at .. previous .. said .. between .. run.facts .. run.moving .. '}'
  run.event, run.shape, run.offset = event, shape, at
  run.previous, run.said, run.between = previous, said, between
  emit(at, event, run.extra)
end

-- What is shown no more: its text is no longer that of a record.
local function hide(run)
  run.event = nil
  if run.from then run.from, run.to = nil, nil end
end

-- Takes what was made of a run back out of its record; false where somebody else has deleted that.
local function take_apart(id, task, run)
  if run.from then
    local record = call('HGET', task.was, id)
    if not record then return false end
    run.facts, run.moving = '', sub(record, run.from, run.to)
    -- Behind REST comes , and the extra's members, or } alone.
    run.extra = #record > run.to + 1 and '{' .. sub(record, run.to + 2) or '{}'
  end
  hide(run)
  return true
end

-- Failures by the minute, for the last hour; an older minute goes when a new one comes.
local failures, counts = {}, {}
local function count_failure(time)
  local minute = math.floor(tonumber(time) / 60)
  if (attempt('HINCRBY', COUNTERS, '["failed",' .. minute .. ']', 1) or 2) > 1 then return end
  local old = {}
  for past = 61, 180 do old[#old + 1] = '["failed",' .. (minute - past) .. ']' end
  attempt('HDEL', COUNTERS, unpack(old))
end

-- What a run ends with whose task goes on elsewhere, or is over: another run's end says more.
local GOES_ON = {pending = true, retrying = true, lost = true}

-- Where the extra begins in a record: no text within it can hold these unescaped.
local function extra_of(rest)
  local from
  for _, name in ipairs({'args', 'kwargs', 'result', 'traceback'}) do
    local at = find(rest, ',"' .. name .. '":', 1, true)
    if at and (not from or at < from) then from = at end
  end
  if not from then return rest, '{}' end
  return sub(rest, 1, from - 1), '{' .. sub(rest, from + 1) .. '}'
end

-- How a task has ended whose id is opened by a run from before that end: its worker was thought dead. It
-- is kept as how another run ended.
local function end_before(id, task, opened)
  local status, worker = finished_as(task)
  local time = status and (task.ended_at or call('ZSCORE', FINISHED, id))
  if not time or GOES_ON[status] or tonumber(opened) >= tonumber(time) then return nil end
  local finished = task.finished
  if type(finished) == 'table' then
    hide(finished)
    return finished
  end
  local at = find(finished, ',"message":"', 1, true)
  if not at then return nil end
  local message = message_of('{' .. sub(finished, at + 1))
  local rest, extra = extra_of(sub(finished, at + 12 + #message, -2))
  return {id = match(rest, '"run":"([^"]*)"') or '', rank = ENDED_RANK, status = status,
    worker = worker, time = time, message = message, facts = '', moving = rest, extra = extra}
end

-- place is that of the run among those that are open, 0 if it was not.
local function close(task, place, run, previous)
  local runs = task.runs
  local was_shown = place == 0 or place == #runs
  -- Progress is what the shown run says, if there is one.
  if any_progress and place == #runs then task.progress, task.progress_over = nil, true end
  if place > 0 then table.remove(runs, place) end
  local next_shown = runs[#runs]
  if next_shown then
    if not GOES_ON[run.status] then task.over = run end
    if was_shown then show(task, next_shown, previous) end
    return
  end
  if task.over then
    if GOES_ON[run.status] then run = task.over end
    task.over = nil
  end
  show(task, run, previous)
  task.finished, task.ended_at = run, run.time
  -- Given back to the broker: the run is over, the task is not.
  if run.status == 'pending' then task.finished, task.timeline, task.steps = nil, nil, nil end
end

local function advance(id, task, place, run, previous)
  local runs = task.runs
  if place == 0 then
    local shown = runs[#runs]
    if not shown and task.finished then task.over = end_before(id, task, run.time) end
    -- The one that goes behind the new one keeps what is needed to show it again.
    if shown and not take_apart(id, task, shown) then table.remove(runs) end
    place = #runs + 1
    runs[place] = run
  end
  if place == #runs then
    show(task, run, previous)
    if task.finished then task.finished = nil end
  end
end

local function lease_has_ended(worker)
  local ends = call('ZSCORE', LEASES, worker)
  return not ends or tonumber(ends) <= now
end

-- In pieces, with room for three steps and the end.
local function note(task, shape, time)
  local steps = task.steps
  if not steps then
    task.steps = {shape.first_step, time, shape.step_end, nil, nil, nil, nil, nil, nil, nil}
    return
  end
  local last = #steps
  steps[last + 1], steps[last + 2], steps[last + 3] = shape.next_step, time, shape.step_end
end

local function timeline_of(task)
  local steps, before = task.steps, task.timeline
  if not steps then return before end
  if before then
    before = sub(before, 2, -2)
    while #before > TIMELINE_BYTES do before = match(before, '^{.-},({.*)$') or '' end
    if before ~= '' then steps[1] = '[' .. before .. ',' .. sub(steps[1], 2) end
  end
  steps[#steps + 1] = ']'
  return table.concat(steps)
end

-- Returns whether the run has ended as lost by this.
local function apply_step(kind, id, run_id, worker, rank, status, time, message, facts, moving, extra)
  local task = tasks[id]
  local runs = task.runs
  local place = #runs
  while place > 0 and runs[place].id ~= run_id do place = place - 1 end
  local run = runs[place]
  if kind ~= 'task' and not run then return end
  if kind == 'lost' and not lease_has_ended(match(run_id, '^(.*)/%d+$')) then return end
  if run then
    if rank < run.rank or (rank == run.rank and status == run.status) then return end
  else
    -- A run that nobody knows and that is over while others are open has nothing to show.
    if rank == ENDED_RANK and #runs > 0 then return end
    -- Its worker was thought dead, and another one has brought the task to its end meanwhile.
    local result = GOES_ON[status] and finished_as(task)
    if result and not GOES_ON[result] then return end
  end
  local previous, shape = previous_of(task), shape_of(status, worker)
  note(task, shape, time)
  if status == 'failed' then failures[#failures + 1] = time end
  if run then
    hide(run)
    run.rank, run.status, run.worker, run.time = rank, status, worker, time
    run.message, run.facts, run.moving, run.extra, run.shape = message, facts, moving, extra, shape
  else
    -- With room for all that it will have: a table that grows is made anew.
    run = {id = run_id, rank = rank, status = status, worker = worker, time = time,
      message = message, facts = facts, moving = moving, extra = extra,
      event = nil, shape = shape, offset = nil, previous = nil, said = nil, between = nil}
  end
  if rank == ENDED_RANK then
    close(task, place, run, previous)
  else
    advance(id, task, place, run, previous)
  end
  return kind == 'lost'
end

local function said_at(progress)
  return tonumber(match(progress or '', '"updated_at":([%d.]+)}$'))
end

-- A process that a task has forked may tell sooner than the task itself, what that said before.
-- By much more it is the clock that was set back.
local function is_late(progress, shown)
  local at, shown_at = said_at(progress), said_at(shown)
  return at and shown_at and at < shown_at and at > shown_at - LATE_PROGRESS
end

-- Progress is reported by the process that runs the task, and often before the worker has told that it runs.
local function apply_progress(progress, id)
  local task = tasks[id]
  if is_late(progress, task.progress) then return end
  local shown = task.runs[#task.runs]
  if shown and match(shown.id, '^(.*)/%d+$') ~= worker_id then return end
  if not shown and (task.finished or call('HLEN', PROGRESS) >= PROGRESS_MAX) then return end
  call('HSET', PROGRESS, id, progress)
  any_progress, task.progress, task.progress_over = true, progress, nil
  if shown and shown.rank == ACTIVE_RANK and take_apart(id, task, shown) then
    show(task, shown, previous_of(task))
  end
end

local function worker_event(rest)
  offset = offset + 1
  local at = format('%d', offset)
  emit(at, '{"type":"worker_status","offset":' .. at .. ',' .. rest .. '}', '{}')
  return ',"offset":' .. at .. ',' .. rest .. '}'
end

local function apply_gone(id, rest)
  local record = call('HGET', WORKERS, id)
  if not record or not lease_has_ended(id) then return end
  local its_batch = match(record, '^' .. WORKER_HEAD .. '(%d+)') or '0'
  call('HSET', WORKERS, id, WORKER_HEAD .. its_batch .. worker_event(rest))
  call('ZREM', LEASES, id)
end

local function add_count(number, other, field)
  counts[#counts + 1] = {number = number, other = other, field = field}
end

-- Some of the counts: those from one place to another.
local function apply_counts(from, to)
  local fields = {}
  for place = from, to do fields[#fields + 1] = counts[place].field end
  local known = attempt('HMGET', COUNTERS, unpack(fields))
  local made = {}
  for place = from, to do
    local number, field = counts[place].number, counts[place].field
    if known and not known[place - from + 1] and not made[field] and
      (attempt('HLEN', COUNTERS) or 0) >= COUNTERS_MAX then
      field = counts[place].other
    end
    attempt(find(number, '.', 1, true) and 'HINCRBYFLOAT' or 'HINCRBY', COUNTERS, field, number)
    made[field] = true
  end
end

local STEP, WORDS = '^(%d)\t(%a+)\t([%d.]+)()', '^\t([^\t]*)\t()'
local OPEN = {}
OPEN.reserved, OPEN.scheduled, OPEN.active = match(ARGV[9], '^([^\t]*)\t([^\t]*)\t(.*)$')
local RANKS = {['1'] = WAITING_RANK, ['2'] = ACTIVE_RANK, ['3'] = ENDED_RANK}
local function apply_steps(kind, run_id, worker, id, steps, facts, extra)
  local from, is_lost = 1
  while from <= #steps do
    local to = find(steps, '\n', from, true) or #steps + 1
    local rank, status, time, at = match(steps, STEP, from)
    local message, moving
    if at == to then
      message, moving = OPEN[status], '"updated_at":' .. time .. ',"timestamp":' .. time
      if status == 'active' then moving = '"started_at":' .. time .. ',' .. moving end
    else
      message, at = match(steps, WORDS, at)
      moving = sub(steps, at, to - 1)
    end
    is_lost = apply_step(kind, id, run_id, worker, RANKS[rank], status, time, message, facts, moving, extra)
    from = to + 1
  end
  return is_lost
end

-- Of which tasks the operations tell is read first, so that these are loaded together. Only what stands last in
-- an operation may hold a TAB.
local ONE, TWO, FOUR = '^%a+\t(.*)$', '^%a+\t([^\t]*)\t(.*)$', '^(%a+)\t?([^\t]*)\t?([^\t]*)\t?(.*)$'
local LONGER = {task = true, ['end'] = true, lost = true}
local kinds, firsts, seconds, thirds, texts, facts_of, steps_of, extras_of = {}, {}, {}, {}, {}, {}, {}, {}
local last = 0
local function touch(id)
  if tasks[id] then return end
  tasks[id] = {runs = {nil}, steps = nil, finished = nil, ended_at = nil}
  touched[#touched + 1] = id
end

-- What stands from there to the next separator, and where it goes on.
local function cut(text, from)
  local at = find(text, '\31', from, true)
  if not at then return sub(text, from), nil end
  return sub(text, from, at - 1), at + 1
end

local function read_tasks(text)
  local from = 7
  while from do
    last = last + 1
    kinds[last] = 'task'
    firsts[last], from = cut(text, from)
    seconds[last], from = cut(text, from)
    thirds[last], from = cut(text, from)
    facts_of[last], from = cut(text, from)
    extras_of[last], from = cut(text, from)
    steps_of[last], from = cut(text, from)
    touch(thirds[last])
  end
end

local argv, at = ARGV, 10
while argv[at] do
  local text = argv[at]
  if sub(text, 1, 6) == 'tasks\31' then
    read_tasks(text)
  else
    local kind, first, second, third = match(text, FOUR)
    last = last + 1
    if kind == 'progress' then first, third = match(text, TWO) end
    kinds[last], firsts[last], seconds[last], thirds[last], texts[last] = kind, first, second, third, text
    if kind == 'progress' or LONGER[kind] then touch(third) end
    if LONGER[kind] then
      steps_of[last], facts_of[last], extras_of[last] = argv[at + 1], argv[at + 2], argv[at + 3]
      at = at + 3
    end
    if kind == 'lost' then
      at = at + 1
      texts[last] = argv[at]
    end
  end
  at = at + 1
end
load_tasks()

for place = 1, last do
  local kind, text = kinds[place], texts[place]
  if LONGER[kind] then
    local is_lost = apply_steps(kind, firsts[place], seconds[place], thirds[place], steps_of[place],
      facts_of[place], extras_of[place])
    if is_lost and text ~= '\t' then add_count('1', match(text, '^([^\t]*)\t(.*)$')) end
  elseif kind == 'count' then
    add_count(firsts[place], seconds[place], thirds[place])
  elseif kind == 'progress' then
    apply_progress(firsts[place], thirds[place])
  elseif kind == 'worker' then
    worker_record = WORKER_HEAD .. batch .. worker_event(match(text, ONE))
  elseif kind == 'gone' then
    apply_gone(match(text, TWO))
  elseif kind == 'forget' then
    local gone = match(text, ONE)
    if lease_has_ended(gone) then call('HDEL', WORKERS, gone) end
  elseif kind == 'depth' then
    local depth, queue = match(text, TWO)
    attempt('HSET', DEPTHS, queue, depth)
  elseif kind == 'uncount' then
    attempt('HDEL', COUNTERS, match(text, ONE))
  elseif kind == 'undepth' then
    attempt('HDEL', DEPTHS, match(text, ONE))
  end
end

-- Only the last state of each task is written, whatever happened to it within the batch.
local function line_of(run)
  local tail
  if run.from then
    tail = run.from .. '\t' .. run.to
  elseif run.event then
    -- The } of the event stands where the record goes on.
    local last = #run.event - 1
    tail = last - #run.facts - #run.moving + 1 .. '\t' .. last
  else
    tail = run.facts .. run.moving .. '\t' .. run.extra
  end
  return run.id .. '\t' .. run.rank .. '\t' .. run.status .. '\t' .. run.worker .. '\t' .. run.offset ..
    '\t' .. run.message .. '\t' .. tail
end

-- Writes by key, a call each for all tasks.
local set, deleted, ended, reopened = {}, {}, {}, {}
local function put(key, field, value)
  local fields = set[key]
  if not fields then
    fields = {}
    set[key] = fields
  end
  local last = #fields
  fields[last + 1], fields[last + 2] = field, value
end
local function drop(key, field)
  local fields = deleted[key] or {}
  deleted[key] = fields
  fields[#fields + 1] = field
end

local function store(id, task)
  local shown = task.runs[#task.runs]
  if shown then
    local lines = line_of(shown)
    for place = #task.runs - 1, 1, -1 do lines = line_of(task.runs[place]) .. '\n' .. lines end
    if task.over then
      task.over.offset = task.over.time
      lines = line_of(task.over) .. '\n' .. lines
    end
    put(RUNS, id, lines)
    local hash = hash_of(shown.rank)
    if shown.event then put(hash, id, record_of(shown)) end
    if task.was and task.was ~= hash then drop(task.was, id) end
  elseif task.was then
    drop(RUNS, id)
    drop(task.was, id)
  end
  if task.finished and task.ended_at then
    put(FINISHED_TASKS, id, record_of(task.finished))
    ended[#ended + 1], ended[#ended + 2] = task.ended_at, id
  elseif task.was_finished and not task.finished then
    drop(FINISHED_TASKS, id)
    reopened[#reopened + 1] = id
  end
  if task.progress_over then drop(PROGRESS, id) end
  local timeline = timeline_of(task)
  if timeline then
    put(TIMELINES, id, timeline)
  elseif task.was or task.was_finished then
    drop(TIMELINES, id)
  end
end
-- Joins as many strings as Lua can in one expression: table.concat makes strings of 8 kB first, and strings of
-- those, and each costs the hash over its bytes anew.
local AT_ONCE = 180
local function join_at_once(p)
  return p[1]..p[2]..p[3]..p[4]..p[5]..p[6]..p[7]..p[8]..p[9]..p[10]..p[11]..p[12]..p[13]..p[14]..p[15]..p[16]
    ..p[17]..p[18]..p[19]..p[20]..p[21]..p[22]..p[23]..p[24]..p[25]..p[26]..p[27]..p[28]..p[29]..p[30]..p[31]
    ..p[32]..p[33]..p[34]..p[35]..p[36]..p[37]..p[38]..p[39]..p[40]..p[41]..p[42]..p[43]..p[44]..p[45]..p[46]
    ..p[47]..p[48]..p[49]..p[50]..p[51]..p[52]..p[53]..p[54]..p[55]..p[56]..p[57]..p[58]..p[59]..p[60]..p[61]
    ..p[62]..p[63]..p[64]..p[65]..p[66]..p[67]..p[68]..p[69]..p[70]..p[71]..p[72]..p[73]..p[74]..p[75]..p[76]
    ..p[77]..p[78]..p[79]..p[80]..p[81]..p[82]..p[83]..p[84]..p[85]..p[86]..p[87]..p[88]..p[89]..p[90]..p[91]
    ..p[92]..p[93]..p[94]..p[95]..p[96]..p[97]..p[98]..p[99]..p[100]..p[101]..p[102]..p[103]..p[104]..p[105]
    ..p[106]..p[107]..p[108]..p[109]..p[110]..p[111]..p[112]..p[113]..p[114]..p[115]..p[116]..p[117]..p[118]
    ..p[119]..p[120]..p[121]..p[122]..p[123]..p[124]..p[125]..p[126]..p[127]..p[128]..p[129]..p[130]..p[131]
    ..p[132]..p[133]..p[134]..p[135]..p[136]..p[137]..p[138]..p[139]..p[140]..p[141]..p[142]..p[143]..p[144]
    ..p[145]..p[146]..p[147]..p[148]..p[149]..p[150]..p[151]..p[152]..p[153]..p[154]..p[155]..p[156]..p[157]
    ..p[158]..p[159]..p[160]..p[161]..p[162]..p[163]..p[164]..p[165]..p[166]..p[167]..p[168]..p[169]..p[170]
    ..p[171]..p[172]..p[173]..p[174]..p[175]..p[176]..p[177]..p[178]..p[179]..p[180]
end

local function join_part(pieces, from, count)
  local part = {unpack(pieces, from, from + count - 1)}
  for place = count + 1, AT_ONCE do part[place] = '' end
  return join_at_once(part)
end

-- Of what is too much as little as possible is joined twice.
local function join(pieces)
  local surplus, fewer, from = #pieces - AT_ONCE, {}, 1
  if surplus <= 0 then return join_part(pieces, 1, #pieces) end
  while surplus > 0 and from <= #pieces do
    local count = math.min(surplus + 1, AT_ONCE, #pieces - from + 1)
    fewer[#fewer + 1] = join_part(pieces, from, count)
    from, surplus = from + count, surplus - count + 1
  end
  for place = from, #pieces do fewer[#fewer + 1] = pieces[place] end
  return join(fewer)
end

-- What goes to the channel. Steps of one run stand side by side and share their extra.
local function message_pieces()
  local pieces, last, extra, between = {epoch .. '-' .. first .. '\n'}, 1
  for place = 1, #ids do
    if extras[place] ~= extra then
      extra = extras[place]
      between = '\n' .. extra .. '\n'
    end
    pieces[last + 1], pieces[last + 2] = events[place], between
    last = last + 2
  end
  pieces[last] = '\n' .. extra
  return pieces
end

for place = 1, #touched do store(touched[place], tasks[touched[place]]) end

for place = 1, #ids do
  call('XADD', EVENTS, ids[place], 'event', events[place], 'extra', extras[place])
end
for key, fields in pairs(set) do call('HSET', key, unpack(fields)) end
if #reopened > 0 then call('ZREM', FINISHED, unpack(reopened)) end
if #ended > 0 then call('ZADD', FINISHED, unpack(ended)) end
for key, fields in pairs(deleted) do call('HDEL', key, unpack(fields)) end

local function forget(ids)
  if #ids == 0 then return end
  call('ZREM', FINISHED, unpack(ids))
  call('HDEL', FINISHED_TASKS, unpack(ids))
  call('HDEL', TIMELINES, unpack(ids))
end
-- Bounded, so that a lowered limit cannot block Redis: the rest goes with the next batches.
local surplus = math.min(call('ZCARD', FINISHED) - history_max, 1000)
if surplus > 0 then forget(call('ZRANGE', FINISHED, 0, surplus - 1)) end
forget(call('ZRANGEBYSCORE', FINISHED, '-inf', now - history_ttl, 'LIMIT', 0, 1000))

if numbered and lease > 0 then
  call('ZADD', LEASES, format('%.6f', now + lease), worker_id)
elseif numbered then
  call('ZREM', LEASES, worker_id)
end
if numbered and worker_record then
  local rest = match(worker_record, '^' .. WORKER_HEAD .. '%d+(.*)$')
  call('HSET', WORKERS, worker_id, WORKER_HEAD .. batch .. rest)
end

if #ids > 0 then
  call('HSET', LOG, 'offset', offset)
  attempt('PUBLISH', channel, join(message_pieces()))
end
for _, time in ipairs(failures) do count_failure(time) end
for from = 1, #counts, 1000 do apply_counts(from, math.min(from + 999, #counts)) end
return {epoch, offset, verdict, trouble}
