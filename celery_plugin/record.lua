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
--       9… operations, TAB between their parts; what is long follows as arguments of its own, because
--          each string that is cut out of another one costs a hash over all of its bytes
--         task run worker(JSON) task-id, steps, FACTS, extra(JSON object)
--           steps of a run, LF between them: rank status time M MOVING; FACTS and MOVING are REST;
--           what the run has come to already is left as it is
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

-- What nobody asks for any more must not fill Redis.
local TIMELINE_BYTES, PROGRESS_MAX, COUNTERS_MAX = 4000, 10000, 50000

local now = redis.call('TIME')
now = tonumber(now[1]) + tonumber(now[2]) / 1e6

-- The epoch. A server that was restored from an older snapshot, or a promoted replica, would give
-- offsets out a second time and viewers would pass over events silently: its run id is another.
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local log = redis.call('HMGET', LOG, 'epoch', 'offset', 'run_id')
local epoch, offset = log[1], tonumber(log[2])
local tail = redis.call('XREVRANGE', EVENTS, '+', '-', 'COUNT', 1)[1]
tail = tail and tonumber(string.match(tail[1], '^%d+')) or 0
-- An entry beyond the last offset is another's, or of a batch that broke off; the next would be refused.
if not epoch or not offset or log[3] ~= run_id or tail > offset then
  -- Offsets go on from what is known, so that no record stands ahead of the log.
  epoch, offset = new_epoch, math.max(offset or 0, tail)
  redis.call('DEL', EVENTS)
  redis.call('HSET', LOG, 'epoch', epoch, 'offset', offset, 'run_id', run_id)
end

-- A call whose answer was lost is sent again under its number.
local WORKER_HEAD = '{"type":"worker_status","batch":'
local worker_record = redis.call('HGET', WORKERS, worker_id)
local last_batch = worker_record and tonumber(string.match(worker_record, '^' .. WORKER_HEAD .. '(%d+)'))
if not last_batch then worker_record = nil end  -- somebody else's
local numbered = batch > 0
if numbered and last_batch and batch <= last_batch then
  return {epoch, offset, 'duplicate'}
end
if numbered and not worker_record and string.sub(ARGV[9] or '', 1, 7) ~= 'worker\t' then
  return {epoch, offset, 'refused'}
end
local verdict = worker_record and redis.call('ZSCORE', LEASES, worker_id) and 'applied' or 'unknown'

-- Each right and each type that is needed below, without any effect. XADD has no such form.
redis.call('HSET', LOG, 'epoch', epoch)  -- first: a Redis that is full refuses only a script's first write
for _, hash in ipairs({RUNS, ACTIVE, WAITING, FINISHED_TASKS, WORKERS, PROGRESS, TIMELINES}) do
  redis.call('HDEL', hash, '')
end
for _, set in ipairs({FINISHED, LEASES}) do
  redis.call('ZADD', set, 'XX', 0, '')
  redis.call('ZREM', set, '')
end
redis.call('ZCARD', FINISHED)
redis.call('ZRANGE', FINISHED, 0, 0)
redis.call('ZRANGEBYSCORE', FINISHED, '-inf', '-inf', 'LIMIT', 0, 1)
redis.call('XTRIM', EVENTS, 'MAXLEN', '~', log_max)

-- A by-product that cannot be written holds up nothing.
local trouble
local function attempt(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  trouble = trouble or command .. ' ' .. key .. ': ' .. reply.err
end

local first = offset + 1
local published = {}
local function emit(event, extra)
  published[#published + 1] = event
  published[#published + 1] = extra
end

-- A record that this batch made: head, FACTS, MOVING, extra; with the status and the worker that it shows.
local function text_of(made)
  if made.extra == '{}' then return made.head .. made.facts .. made.moving .. '}' end
  return made.head .. made.facts .. made.moving .. ',' .. string.sub(made.extra, 2)
end

-- tasks: task id → what this batch knows of it. runs: the open ones, the shown one last; over: how
-- one of them has ended meanwhile; record: the shown one's, if this batch made it; finished: that
-- it has ended, as Redis holds it or this batch made it; was: the hash that held its record before;
-- steps: what this batch adds to its timeline.
local tasks, touched = {}, {}

local function split_line(line)
  local part = {}
  for value in string.gmatch(line .. '\t', '(.-)\t') do part[#part + 1] = value end
  local run = {id = part[1], rank = tonumber(part[2]), status = part[3], worker = part[4], offset = part[5]}
  run.message = part[6]
  if tonumber(part[7]) then
    run.from, run.to = tonumber(part[7]), tonumber(part[8])
  else
    run.facts, run.moving, run.extra = '', part[7], part[8]
  end
  return run
end

local function hash_of(rank)
  return rank == ACTIVE_RANK and ACTIVE or WAITING
end

local any_progress = redis.call('HLEN', PROGRESS) > 0

local function load(id)
  local task = tasks[id]
  if task then return task end
  task = {runs = {}, steps = {}}
  local lines = redis.call('HGET', RUNS, id)
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
  else
    task.was_finished = redis.call('HGET', FINISHED_TASKS, id) or nil
    task.finished = task.was_finished
  end
  if lines or task.finished then task.timeline = redis.call('HGET', TIMELINES, id) or nil end
  if any_progress then task.progress = redis.call('HGET', PROGRESS, id) or nil end
  tasks[id] = task
  touched[#touched + 1] = id
  return task
end

local function finished_as(task)
  if type(task.finished) == 'table' then return task.finished.status, task.finished.worker end
  if not task.finished then return nil end
  return string.match(task.finished, '^{"type":"task_status","status":"(%a+)","worker":(.-),"offset":')
end

local function previous_of(task)
  local shown = task.runs[#task.runs]
  local status, worker = finished_as(task)
  if shown then status, worker = shown.status, shown.worker end
  if not status then return 'null' end
  return '{"status":"' .. status .. '","worker":' .. worker .. '}'
end

-- The text of a progress object, as JSON; it is its first member where there is one.
local function message_of(progress)
  if string.sub(progress, 1, 12) ~= '{"message":"' then return nil end
  local at = 13
  while true do
    at = string.find(progress, '["\\]', at)
    if string.sub(progress, at, at) == '"' then return string.sub(progress, 12, at) end
    at = at + 2
  end
end

-- Makes the event of a run and the record; previous is what viewers saw before it.
local function show(task, run, previous)
  offset = offset + 1
  local message, progress = run.message, ''
  if task.progress and run.rank == ACTIVE_RANK then
    message, progress = message_of(task.progress) or message, '"progress":' .. task.progress .. ','
  end
  local at = string.format('%d', offset)
  local head = '{"type":"task_status","status":"' .. run.status .. '","worker":' .. run.worker ..
    ',"offset":' .. at .. ',"previous":' .. previous .. ',"message":' .. message .. ',' .. progress
  local made = {head = head, facts = run.facts, moving = run.moving, extra = run.extra,
    status = run.status, worker = run.worker}
  local length = #head + #made.facts + #made.moving
  -- Progress may take the room that long arguments had.
  if progress ~= '' and length + 1 + #made.extra > 1024 then made.extra = '{}' end
  emit(head .. made.facts .. made.moving .. '}', made.extra)
  run.offset, run.from, run.to = at, #head + 1, length
  run.facts, run.moving, run.extra = nil, nil, nil
  return made
end

-- Takes what was made of a run back out of its record; false where somebody else has deleted that.
local function take_apart(id, task, run)
  if run.facts then return true end
  if task.record then
    run.facts, run.moving, run.extra = task.record.facts, task.record.moving, task.record.extra
    return true
  end
  local record = redis.call('HGET', task.was, id)
  if not record then return false end
  run.facts, run.moving = '', string.sub(record, run.from, run.to)
  -- Behind REST comes , and the extra's members, or } alone.
  run.extra = #record > run.to + 1 and '{' .. string.sub(record, run.to + 2) or '{}'
  return true
end

local function find(task, run_id_wanted)
  for place, run in ipairs(task.runs) do
    if run.id == run_id_wanted then return place, run end
  end
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
    local at = string.find(rest, ',"' .. name .. '":', 1, true)
    if at and (not from or at < from) then from = at end
  end
  if not from then return rest, '{}' end
  return string.sub(rest, 1, from - 1), '{' .. string.sub(rest, from + 1) .. '}'
end

-- How a task has ended whose id is opened by a run from before that end: its worker was thought dead. It
-- is kept as how another run ended.
local function end_before(id, task, step)
  local status, worker = finished_as(task)
  local time = status and (task.ended_at or redis.call('ZSCORE', FINISHED, id))
  if not time or GOES_ON[status] or tonumber(step.time) >= tonumber(time) then return nil end
  local at = string.find(task.finished, ',"message":"', 1, true)
  if not at then return nil end
  local message = message_of('{' .. string.sub(task.finished, at + 1))
  local rest, extra = extra_of(string.sub(task.finished, at + 12 + #message, -2))
  return {id = string.match(rest, '"run":"([^"]*)"') or '', rank = ENDED_RANK, status = status,
    worker = worker, time = time, message = message, facts = '', moving = rest, extra = extra}
end

local function close(task, place, step, previous)
  local was_shown = place == nil or place == #task.runs
  if place then table.remove(task.runs, place) end
  task.progress, task.progress_over = nil, any_progress
  local next_shown = task.runs[#task.runs]
  if next_shown then
    if not GOES_ON[step.status] then task.over = step end
    if not was_shown then return end
    task.record = show(task, next_shown, previous)
    return
  end
  if GOES_ON[step.status] and task.over then step = task.over end
  task.record, task.finished = nil, show(task, step, previous)
  task.ended_at, task.over = step.time, nil
  -- Given back to the broker: the run is over, the task is not.
  if step.status == 'pending' then task.finished, task.timeline, task.steps = nil, nil, {} end
end

local function advance(id, task, place, run, step, previous)
  if not run then
    local shown = task.runs[#task.runs]
    if not shown then task.over = end_before(id, task, step) end
    -- The one that goes behind the new one keeps what is needed to show it again.
    if shown and not take_apart(id, task, shown) then table.remove(task.runs) end
    task.runs[#task.runs + 1] = step
    run, place = step, #task.runs
  else
    run.rank, run.status, run.worker = step.rank, step.status, step.worker
    run.message, run.facts, run.moving, run.extra = step.message, step.facts, step.moving, step.extra
  end
  if place == #task.runs then
    task.record, task.finished = show(task, run, previous), nil
  end
end

local function lease_has_ended(worker)
  local ends = redis.call('ZSCORE', LEASES, worker)
  return not ends or tonumber(ends) <= now
end

local function note(task, step)
  task.steps[#task.steps + 1] = '{"status":"' .. step.status .. '","at":' .. step.time ..
    ',"worker":' .. step.worker .. '}'
end

local function timeline_of(task)
  if #task.steps == 0 then return task.timeline end
  local before = task.timeline and string.sub(task.timeline, 2, -2) or ''
  while #before > TIMELINE_BYTES do before = string.match(before, '^{.-},({.*)$') or '' end
  return '[' .. before .. (before == '' and '' or ',') .. table.concat(task.steps, ',') .. ']'
end

-- Returns whether the run has ended as lost by this.
local function apply_task(kind, id, step)
  local task = load(id)
  local place, run = find(task, step.id)
  if kind ~= 'task' and not run then return end
  if kind == 'lost' and not lease_has_ended(string.match(step.id, '^(.*)/%d+$')) then return end
  if run and (step.rank < run.rank or (step.rank == run.rank and step.status == run.status)) then return end
  -- A run that nobody knows and that is over while others are open has nothing to show.
  if not run and step.rank == ENDED_RANK and #task.runs > 0 then return end
  -- Its worker was thought dead, and another one has brought the task to its end meanwhile.
  local result = finished_as(task)
  if not run and GOES_ON[step.status] and result and not GOES_ON[result] then return end
  local previous = previous_of(task)
  note(task, step)
  if step.status == 'failed' then failures[#failures + 1] = step.time end
  if step.rank == ENDED_RANK then
    close(task, place, step, previous)
  else
    advance(id, task, place, run, step, previous)
  end
  return kind == 'lost'
end

-- Progress is reported by the process that runs the task, and often before the worker has told that it runs.
local function apply_progress(progress, id)
  local task = load(id)
  local shown = task.runs[#task.runs]
  if shown and string.match(shown.id, '^(.*)/%d+$') ~= worker_id then return end
  if not shown and (task.finished or redis.call('HLEN', PROGRESS) >= PROGRESS_MAX) then return end
  redis.call('HSET', PROGRESS, id, progress)
  any_progress, task.progress = true, progress
  if shown and shown.rank == ACTIVE_RANK and take_apart(id, task, shown) then
    task.record = show(task, shown, previous_of(task))
  end
end

local function worker_event(rest)
  offset = offset + 1
  emit('{"type":"worker_status","offset":' .. offset .. ',' .. rest .. '}', '{}')
  return ',"offset":' .. offset .. ',' .. rest .. '}'
end

local function apply_gone(id, rest)
  local record = redis.call('HGET', WORKERS, id)
  if not record or not lease_has_ended(id) then return end
  local its_batch = string.match(record, '^' .. WORKER_HEAD .. '(%d+)') or '0'
  redis.call('HSET', WORKERS, id, WORKER_HEAD .. its_batch .. worker_event(rest))
  redis.call('ZREM', LEASES, id)
end

local function apply_count(number, other, field)
  if attempt('HEXISTS', COUNTERS, field) == 0 and (attempt('HLEN', COUNTERS) or 0) >= COUNTERS_MAX then
    field = other
  end
  attempt(string.find(number, '%.') and 'HINCRBYFLOAT' or 'HINCRBY', COUNTERS, field, number)
end

-- Only what stands last may hold a TAB.
local OF_RUN = '^([^\t]*)\t([^\t]*)\t(.*)$'
local STEP = '(%d)\t(%a+)\t([^\t]*)\t([^\t]*)\t([^\n]*)'
local function apply_steps(kind, parts, steps, facts, extra)
  local run, worker, id = string.match(parts, OF_RUN)
  local is_lost
  for rank, status, time, message, moving in string.gmatch(steps, STEP) do
    local step = {id = run, rank = tonumber(rank), status = status, worker = worker, time = time,
      message = message, facts = facts, moving = moving, extra = extra}
    is_lost = apply_task(kind, id, step)
  end
  return is_lost
end

local IS_STEP = {task = true, ['end'] = true, lost = true}
local at = 9
while ARGV[at] do
  local kind, parts = string.match(ARGV[at], '^(%a+)\t(.*)$')
  if IS_STEP[kind] then
    local is_lost = apply_steps(kind, parts, ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
    at = at + 3
    if kind == 'lost' then
      at = at + 1
      if is_lost and ARGV[at] ~= '\t' then counts[#counts + 1] = '1\t' .. ARGV[at] end
    end
  elseif kind == 'count' then
    counts[#counts + 1] = parts
  elseif kind == 'progress' then
    apply_progress(string.match(parts, '^([^\t]*)\t(.*)$'))
  elseif kind == 'worker' then
    worker_record = WORKER_HEAD .. batch .. worker_event(parts)
  elseif kind == 'gone' then
    apply_gone(string.match(parts, '^([^\t]*)\t(.*)$'))
  elseif kind == 'forget' then
    if lease_has_ended(parts) then redis.call('HDEL', WORKERS, parts) end
  elseif kind == 'depth' then
    local depth, queue = string.match(parts, '^([^\t]*)\t(.*)$')
    attempt('HSET', DEPTHS, queue, depth)
  elseif kind == 'uncount' then
    attempt('HDEL', COUNTERS, parts)
  elseif kind == 'undepth' then
    attempt('HDEL', DEPTHS, parts)
  end
  at = at + 1
end

-- Only the last state of each task is written, whatever happened to it within the batch.
local function line_of(run)
  local tail
  if run.facts then
    tail = run.facts .. run.moving .. '\t' .. run.extra
  else
    tail = run.from .. '\t' .. run.to
  end
  return table.concat({run.id, run.rank, run.status, run.worker, run.offset, run.message, tail}, '\t')
end

-- Writes by key, a call each for all tasks: a call costs more than what it does.
local set, deleted, ended = {}, {}, {}
local function put(key, field, value)
  local fields = set[key] or {}
  set[key] = fields
  fields[#fields + 1], fields[#fields + 2] = field, value
end
local function drop(key, field)
  local fields = deleted[key] or {}
  deleted[key] = fields
  fields[#fields + 1] = field
end

local function store(id, task)
  local shown = task.runs[#task.runs]
  if shown then
    local lines = {}
    if task.over then
      task.over.offset = task.over.time
      lines[1] = line_of(task.over)
    end
    for _, run in ipairs(task.runs) do lines[#lines + 1] = line_of(run) end
    put(RUNS, id, table.concat(lines, '\n'))
    local hash = hash_of(shown.rank)
    if task.record then put(hash, id, text_of(task.record)) end
    if task.was and task.was ~= hash then drop(task.was, id) end
  elseif task.was then
    drop(RUNS, id)
    drop(task.was, id)
  end
  if task.finished and task.ended_at then
    put(FINISHED_TASKS, id, text_of(task.finished))
    ended[#ended + 1], ended[#ended + 2] = task.ended_at, id
  elseif task.was_finished and not task.finished then
    drop(FINISHED_TASKS, id)
    redis.call('ZREM', FINISHED, id)
  end
  if task.progress_over then drop(PROGRESS, id) end
  local timeline = timeline_of(task)
  if timeline then
    put(TIMELINES, id, timeline)
  elseif task.was or task.was_finished then
    drop(TIMELINES, id)
  end
end

for place = 1, #published, 2 do
  redis.call('XADD', EVENTS, string.format('%d-0', first + (place - 1) / 2),
    'event', published[place], 'extra', published[place + 1])
end
for _, id in ipairs(touched) do store(id, tasks[id]) end
for key, fields in pairs(set) do redis.call('HSET', key, unpack(fields)) end
if #ended > 0 then redis.call('ZADD', FINISHED, unpack(ended)) end
for key, fields in pairs(deleted) do redis.call('HDEL', key, unpack(fields)) end

local function forget(ids)
  if #ids == 0 then return end
  redis.call('ZREM', FINISHED, unpack(ids))
  redis.call('HDEL', FINISHED_TASKS, unpack(ids))
  redis.call('HDEL', TIMELINES, unpack(ids))
end
-- Bounded, so that a lowered limit cannot block Redis: the rest goes with the next batches.
local surplus = math.min(redis.call('ZCARD', FINISHED) - history_max, 1000)
if surplus > 0 then forget(redis.call('ZRANGE', FINISHED, 0, surplus - 1)) end
forget(redis.call('ZRANGEBYSCORE', FINISHED, '-inf', now - history_ttl, 'LIMIT', 0, 1000))

if numbered and lease > 0 then
  redis.call('ZADD', LEASES, string.format('%.6f', now + lease), worker_id)
elseif numbered then
  redis.call('ZREM', LEASES, worker_id)
end
if numbered and worker_record then
  local rest = string.match(worker_record, '^' .. WORKER_HEAD .. '%d+(.*)$')
  redis.call('HSET', WORKERS, worker_id, WORKER_HEAD .. batch .. rest)
end

if #published > 0 then
  redis.call('HSET', LOG, 'offset', offset)
  attempt('PUBLISH', channel, epoch .. '-' .. first .. '\n' .. table.concat(published, '\n'))
end
for _, time in ipairs(failures) do count_failure(time) end
for _, parts in ipairs(counts) do apply_count(string.match(parts, '^([^\t]*)\t([^\t]*)\t(.*)$')) end
return {epoch, offset, verdict, trouble}
