-- Applies one batch of one worker: offsets, run rules, records, log and channel in one step, so
-- that no reader can see a state that the log does not tell, nor the other way round.
--
-- It never parses JSON (cjson cuts timestamps and breaks large integers): what it must know comes
-- as arguments, and it writes the head of each event itself.
--
--   event    {"type":"task_status","status":S,"worker":W,"offset":N,"previous":P,REST}
--   record   the event with the members of the extra behind REST
--   runs     a line a run, the shown one last: run TAB rank TAB status TAB worker TAB offset
--              TAB where REST begins and ends in the record   (the shown one)
--              TAB REST TAB extra                             (one that stands behind it)
--
-- KEYS  1 log  2 runs  3 active_tasks  4 waiting_tasks  5 finished_tasks  6 finished
--       7 workers  8 leases  9 events
-- ARGV  1 channel  2 an epoch to use if one is needed  3 worker id  4 batch number
--       5 lease in seconds, 0 gives it up  6 log's length  7 history's length  8 history's age in s
--       9… operations, TAB between their parts (one argument each: nine would cost more than the rest)
--         task run rank status worker(JSON) time REST extra(JSON object) task-id
--           a step of a run; a run that is there already is left as it is
--         end  the same; only if that run is still open
--         worker REST
-- Returns epoch, offset of the last event, verdict: "applied", "duplicate", "unknown" (applied, but
-- Redis held no lease of this worker: unless this batch begins with it, say all that you have) or
-- "refused" (not applied: Redis has no record of this worker in which to keep the batch's number, so
-- the same call made twice would count twice; send it again behind the record).

local LOG, RUNS, ACTIVE, WAITING, FINISHED_TASKS, FINISHED, WORKERS, LEASES, EVENTS = unpack(KEYS)
local channel, new_epoch, worker_id, batch = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local lease, log_max = tonumber(ARGV[5]), ARGV[6]
local history_max, history_ttl = tonumber(ARGV[7]), tonumber(ARGV[8])
local WAITING_RANK, ACTIVE_RANK, ENDED_RANK = 1, 2, 3

-- The epoch. A server that was restored from an older snapshot, or a promoted replica, would give
-- offsets out a second time and viewers would pass over events silently: its run id is another.
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local log = redis.call('HMGET', LOG, 'epoch', 'offset', 'run_id')
local epoch, offset = log[1], tonumber(log[2])
if not epoch or not offset or log[3] ~= run_id then
  -- Offsets go on from what is known, so that no record stands ahead of the log.
  local tail = redis.call('XREVRANGE', EVENTS, '+', '-', 'COUNT', 1)[1]
  epoch, offset = new_epoch, math.max(offset or 0, tail and tonumber(string.match(tail[1], '^%d+')) or 0)
  redis.call('DEL', EVENTS)
  redis.call('HSET', LOG, 'epoch', epoch, 'offset', offset, 'run_id', run_id)
end

-- A call whose answer was lost is sent again under its number.
local WORKER_HEAD = '{"type":"worker_status","batch":'
local worker_record = redis.call('HGET', WORKERS, worker_id)
local last_batch = worker_record and tonumber(string.match(worker_record, '^' .. WORKER_HEAD .. '(%d+)'))
if last_batch and batch <= last_batch then
  return {epoch, offset, 'duplicate'}
end
if not worker_record and string.sub(ARGV[9] or '', 1, 7) ~= 'worker\t' then
  return {epoch, offset, 'refused'}
end
local verdict = worker_record and redis.call('ZSCORE', LEASES, worker_id) and 'applied' or 'unknown'

local first = offset + 1
local published = {}
local function emit(event, extra)
  redis.call('XADD', EVENTS, offset .. '-0', 'event', event, 'extra', extra)
  published[#published + 1] = event
  published[#published + 1] = extra
end

local function merge(event, extra)
  if extra == '{}' then return event end
  return string.sub(event, 1, -2) .. ',' .. string.sub(extra, 2)
end

-- tasks: task id → what this batch knows of it. runs: the open ones, the shown one last; record:
-- the shown one's, if this batch made it; finished: the record if it has ended; was: the hash that
-- held its record before this batch.
local tasks, touched = {}, {}

local function split_line(line)
  local part = {}
  for value in string.gmatch(line .. '\t', '(.-)\t') do part[#part + 1] = value end
  local run = {id = part[1], rank = tonumber(part[2]), status = part[3], worker = part[4], offset = part[5]}
  if tonumber(part[6]) then
    run.from, run.to = tonumber(part[6]), tonumber(part[7])
  else
    run.rest, run.extra = part[6], part[7]
  end
  return run
end

local function hash_of(rank)
  return rank == ACTIVE_RANK and ACTIVE or WAITING
end

local function load(id)
  local task = tasks[id]
  if task then return task end
  task = {runs = {}}
  local lines = redis.call('HGET', RUNS, id)
  if lines then
    for line in string.gmatch(lines, '[^\n]+') do task.runs[#task.runs + 1] = split_line(line) end
    task.was = hash_of(task.runs[#task.runs].rank)
  else
    task.finished = redis.call('HGET', FINISHED_TASKS, id) or nil
    task.was_finished = task.finished ~= nil
  end
  tasks[id] = task
  touched[#touched + 1] = id
  return task
end

local function previous_of(task)
  local shown = task.runs[#task.runs]
  local status, worker
  if shown then
    status, worker = shown.status, shown.worker
  elseif task.finished then
    status, worker = string.match(task.finished, '^{"type":"task_status","status":"(%a+)","worker":(.-),"offset":')
  end
  if not status then return 'null' end
  return '{"status":"' .. status .. '","worker":' .. worker .. '}'
end

-- Makes the event of a run and the record; previous is what viewers saw before it.
local function show(task, run, previous)
  offset = offset + 1
  local head = '{"type":"task_status","status":"' .. run.status .. '","worker":' .. run.worker ..
    ',"offset":' .. offset .. ',"previous":' .. previous .. ','
  local event = head .. run.rest .. '}'
  run.offset, run.from, run.to = offset, #head + 1, #event - 1
  emit(event, run.extra)
  return merge(event, run.extra)
end

-- A run that goes behind another keeps what is needed to show it again; it is let go where its record
-- was deleted by somebody else.
local function step_behind(id, task, run)
  if run.rest then return end
  local record = task.record or redis.call('HGET', task.was, id)
  if not record then
    table.remove(task.runs)
    return
  end
  run.rest = string.sub(record, run.from, run.to)
  -- Behind REST comes , and the extra's members, or } alone.
  run.extra = #record > run.to + 1 and '{' .. string.sub(record, run.to + 2) or '{}'
end

local function find(task, run_id_wanted)
  for place, run in ipairs(task.runs) do
    if run.id == run_id_wanted then return place, run end
  end
end

local function close(task, place, step, previous)
  local was_shown = place == nil or place == #task.runs
  if place then table.remove(task.runs, place) end
  local next_shown = task.runs[#task.runs]
  if not was_shown then return end
  if next_shown then
    task.record = show(task, next_shown, previous)
    next_shown.rest, next_shown.extra = nil, nil
  else
    task.record, task.finished = nil, show(task, step, previous)
    task.ended_at = step.time
    -- Given back to the broker: the run is over, the task is not.
    if step.status == 'pending' then task.finished = nil end
  end
end

local function advance(id, task, place, run, step, previous)
  if not run then
    local shown = task.runs[#task.runs]
    if shown then step_behind(id, task, shown) end
    task.runs[#task.runs + 1] = step
    run, place = step, #task.runs
  else
    run.rank, run.status, run.worker = step.rank, step.status, step.worker
    run.rest, run.extra = step.rest, step.extra
  end
  if place == #task.runs then
    task.record, task.finished = show(task, run, previous), nil
    run.rest, run.extra = nil, nil
  end
end

local function apply_task(id, step, only_if_open)
  local task = load(id)
  local place, run = find(task, step.id)
  if only_if_open and not run then return end
  if run and (step.rank < run.rank or (step.rank == run.rank and step.status == run.status)) then return end
  -- A run that nobody knows and that is over while others are open has nothing to show.
  if not run and step.rank == ENDED_RANK and #task.runs > 0 then return end
  local previous = previous_of(task)
  if step.rank == ENDED_RANK then
    close(task, place, step, previous)
  else
    advance(id, task, place, run, step, previous)
  end
end

local function apply_worker(rest)
  offset = offset + 1
  emit('{"type":"worker_status","offset":' .. offset .. ',' .. rest .. '}', '{}')
  worker_record = WORKER_HEAD .. batch .. ',"offset":' .. offset .. ',' .. rest .. '}'
end

-- Only the id may hold a TAB, so it comes last.
local STEP = '^(%a+)\t([^\t]*)\t(%d+)\t(%a+)\t([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\t]*)\t(.*)$'
for at = 9, #ARGV do
  local kind, run, rank, status, worker, time, rest, extra, id = string.match(ARGV[at], STEP)
  if kind then
    local step = {id = run, rank = tonumber(rank), status = status, worker = worker, time = time}
    step.rest, step.extra = rest, extra
    apply_task(id, step, kind == 'end')
  else
    apply_worker(string.match(ARGV[at], '^worker\t(.*)$'))
  end
end

-- Only the last state of each task is written, whatever happened to it within the batch.
local function line_of(run)
  local tail = run.rest and (run.rest .. '\t' .. run.extra) or (run.from .. '\t' .. run.to)
  return run.id .. '\t' .. run.rank .. '\t' .. run.status .. '\t' .. run.worker .. '\t' .. run.offset .. '\t' .. tail
end

local function store(id, task)
  local shown = task.runs[#task.runs]
  if shown then
    local lines = {}
    for place, run in ipairs(task.runs) do lines[place] = line_of(run) end
    redis.call('HSET', RUNS, id, table.concat(lines, '\n'))
    local hash = hash_of(shown.rank)
    if task.record then redis.call('HSET', hash, id, task.record) end
    if task.was and task.was ~= hash then redis.call('HDEL', task.was, id) end
  elseif task.was then
    redis.call('HDEL', RUNS, id)
    redis.call('HDEL', task.was, id)
  end
  if task.finished and task.ended_at then
    redis.call('HSET', FINISHED_TASKS, id, task.finished)
    redis.call('ZADD', FINISHED, task.ended_at, id)
  elseif task.was_finished and not task.finished then
    redis.call('HDEL', FINISHED_TASKS, id)
    redis.call('ZREM', FINISHED, id)
  end
end

for _, id in ipairs(touched) do store(id, tasks[id]) end

local now = redis.call('TIME')
now = tonumber(now[1]) + tonumber(now[2]) / 1e6

local function forget(ids)
  if #ids == 0 then return end
  redis.call('ZREM', FINISHED, unpack(ids))
  redis.call('HDEL', FINISHED_TASKS, unpack(ids))
end
-- Bounded, so that a lowered limit cannot block Redis: the rest goes with the next batches.
local surplus = math.min(redis.call('ZCARD', FINISHED) - history_max, 1000)
if surplus > 0 then forget(redis.call('ZRANGE', FINISHED, 0, surplus - 1)) end
forget(redis.call('ZRANGEBYSCORE', FINISHED, '-inf', now - history_ttl, 'LIMIT', 0, 1000))

if lease > 0 then
  redis.call('ZADD', LEASES, string.format('%.6f', now + lease), worker_id)
else
  redis.call('ZREM', LEASES, worker_id)
end
if worker_record then
  local rest = string.match(worker_record, '^' .. WORKER_HEAD .. '%d+(.*)$')
  redis.call('HSET', WORKERS, worker_id, WORKER_HEAD .. batch .. rest)
end

if #published > 0 then
  redis.call('HSET', LOG, 'offset', offset)
  redis.call('XTRIM', EVENTS, 'MAXLEN', '~', log_max)
  redis.call('PUBLISH', channel, epoch .. '-' .. first .. '\n' .. table.concat(published, '\n'))
end
return {epoch, offset, verdict}
