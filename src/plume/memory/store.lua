-- Every operation of the Redis store, one call each: Redis runs nothing else meanwhile, so it is done wholly or not at all.
-- Everything is checked before anything is written, because Redis does not roll back.
--
-- KEYS of a conversation: 1 its hash, 2 the stream of its messages, 3 the positions of their ids, 4 the tenant's
-- conversations by age. The message at position p is the stream's entry p-1 (0-0 is not allowed).
-- KEYS of a document: 1 its hash, 2 the tenant's documents of that kind by age.
-- ARGV: 1 the operation, 2 the time in microseconds, empty for the server's own; then what the operation needs.

local operation, given = ARGV[1], ARGV[2]

local function text(number)
  return string.format('%.0f', number)
end

local function clock()
  if given ~= '' then
    return tonumber(given)
  end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local now = clock()

local function ends(lifetime)
  return lifetime == '' and '' or text(now + tonumber(lifetime))
end

-- The fields of a hash, nil when there is none or its time is over.
local function visible(...)
  local found = redis.call('HMGET', KEYS[1], 'expires_at', ...)
  if not found[1] or (found[1] ~= '' and tonumber(found[1]) <= now) then
    return nil
  end
  return found
end

local function conversation()
  return redis.call('HMGET', KEYS[1], 'head', 'created_at', 'updated_at', 'expires_at', 'body')
end

-- Each message as one string, which clients read quicker than many: place, time, length of the id, id and body.
local function packed(rows)
  local parts = {}
  for i, row in ipairs(rows) do
    local id, time, body = row[2][2], row[2][4], row[2][6]
    parts[i] = row[1] .. ' ' .. time .. ' ' .. #id .. ' ' .. id .. body
  end
  return parts
end

local function entry(position)
  return redis.call('XRANGE', KEYS[2], position .. '-1', position .. '-1')[1]
end

local function move(found, head)
  local moment = math.max(now, tonumber(found[3]))
  redis.call('HSET', KEYS[1], 'head', text(head), 'updated_at', text(moment))
  return text(moment)
end

local run = {}

function run.create(id, body, lifetime)
  if visible() then
    return { 'taken' }
  end
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
  redis.call('HSET', KEYS[1], 'head', '0', 'created_at', text(now), 'updated_at', text(now),
    'expires_at', ends(lifetime), 'body', body)
  redis.call('ZADD', KEYS[4], text(now), id)
  return { 'ok', conversation() }
end

function run.show()
  return visible() and { 'ok', conversation() } or { 'none' }
end

function run.read(low, high, order, limit)
  if not visible() then
    return { 'none' }
  end
  local from, to, count = text(tonumber(low) + 1) .. '-0', high .. '-0', tonumber(limit)
  local rows = {}
  if count ~= 0 and order == 'last' then
    rows = redis.call('XREVRANGE', KEYS[2], to, from, 'COUNT', count)
  elseif count ~= 0 then
    rows = redis.call('XRANGE', KEYS[2], from, to, 'COUNT', count)
  end
  return { 'ok', conversation(), packed(rows) }
end

function run.item(name)
  if not visible() then
    return { 'none' }
  end
  local position = redis.call('HGET', KEYS[3], name)
  return position and { 'ok', packed({ entry(position) }) } or { 'no item' }
end

-- Names and bodies follow in turns. Messages whose names are known are returned for the caller to compare, and
-- nothing is written, unless the caller says that it has compared them.
function run.append(at, compared)
  local found, known = visible('head', 'updated_at'), {}
  if not found then
    return { 'none' }
  end
  for i = 5, #ARGV, 2 do
    local position = redis.call('HGET', KEYS[3], ARGV[i])
    if position then
      known[ARGV[i]] = entry(position)
    end
  end
  if next(known) and compared == '' then
    local rows = {}
    for _, row in pairs(known) do
      rows[#rows + 1] = row
    end
    return { 'known', packed(rows) }
  end
  local head = tonumber(found[2])
  if at ~= '' and tonumber(at) ~= head then
    return { 'changed', head }
  end
  local moment, rows = text(math.max(now, tonumber(found[3]))), {}
  for i = 5, #ARGV, 2 do
    if not known[ARGV[i]] then
      redis.call('XADD', KEYS[2], text(head) .. '-1', 'id', ARGV[i], 'at', moment, 'body', ARGV[i + 1])
      redis.call('HSET', KEYS[3], ARGV[i], text(head))
      rows[#rows + 1] = { text(head), moment }
      head = head + 1
    end
  end
  redis.call('HSET', KEYS[1], 'head', text(head), 'updated_at', moment)
  return { 'ok', rows }
end

function run.remove()
  local found, positions = visible('head', 'updated_at'), {}
  if not found then
    return { 'none' }
  end
  for i = 3, #ARGV do
    positions[i] = redis.call('HGET', KEYS[3], ARGV[i])
    if not positions[i] then
      return { 'no item', i - 3 }
    end
  end
  for i = 3, #ARGV do
    redis.call('XDEL', KEYS[2], positions[i] .. '-1')
    redis.call('HDEL', KEYS[3], ARGV[i])
  end
  move(found, tonumber(found[2]) + (#ARGV > 2 and 1 or 0))
  return { 'ok', conversation() }
end

function run.update(body)
  local found = visible('head', 'updated_at')
  if not found then
    return { 'none' }
  end
  redis.call('HSET', KEYS[1], 'body', body)
  move(found, tonumber(found[2]))
  return { 'ok', conversation() }
end

function run.delete(id)
  if not visible() then
    return { 'none' }
  end
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
  redis.call('ZREM', KEYS[4], id)
  return { 'ok' }
end

local function document()
  return redis.call('HMGET', KEYS[1], 'revision', 'created_at', 'updated_at', 'expires_at', 'body')
end

function run.put(id, body, at, lifetime)
  local found = visible('revision', 'created_at')
  local revision = found and tonumber(found[2]) or 0
  if at ~= '' and tonumber(at) ~= revision then
    return { 'changed', revision }
  end
  local created = found and found[3] or text(now)
  redis.call('HSET', KEYS[1], 'revision', text(revision + 1), 'created_at', created, 'updated_at', text(now),
    'expires_at', ends(lifetime), 'body', body)
  redis.call('ZADD', KEYS[2], created, id)
  return { 'ok', document() }
end

function run.get()
  return visible() and { 'ok', document() } or { 'none' }
end

function run.discard(id)
  if not visible() then
    return { 'none' }
  end
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], id)
  return { 'ok' }
end

-- Ids by age, the newest first, behind the one named.
function run.page(after, count)
  local rank = after ~= '' and redis.call('ZREVRANK', KEYS[1], after)
  if after ~= '' and not rank then
    return { 'ok', {} }
  end
  local start = rank and rank + 1 or 0
  return { 'ok', redis.call('ZREVRANGE', KEYS[1], start, start + tonumber(count) - 1) }
end

return run[operation](ARGV[3], ARGV[4], ARGV[5], ARGV[6])
