-- Every operation of the Redis store, one call each: Redis runs nothing else meanwhile, so it is done wholly or not at all.
-- Everything is checked before anything is written, because Redis does not roll back.
--
-- KEYS: 1 the tenant's root, with which all its keys begin, 2 the names of all tenants; of who seals also 3 the document
-- with the keys.
-- ARGV: 1 the operation, 2 the time in microseconds, empty for the server's own, 3 the tenant's name, 4 what who seals
-- takes the body of that document for, 5 whose keys these are; then what the operation needs: first the id, or the
-- kind and the id.
--
-- ROOT:conversation:ID   hash        ROOT:conversations             ids by age
-- ROOT:messages:ID       stream      ROOT:conversations:of:USER     those about a person
-- ROOT:positions:ID      of the ids  ROOT:kinds                     of documents
-- ROOT:vectors:ID        by position ROOT:documents:KIND            ids by age
-- ROOT:document:KIND:ID  hash        ROOT:documents:KIND:of:USER    those about a person
-- ROOT:lifetime          of new conversations, in microseconds
-- ROOT:trail             the lines of the audit trail: time and body
-- ROOT:ends              what ends when: `c` and an id, or `d`, the kind in percent-encoding, a colon and an id
--
-- The message at position p is the stream's entry p-1 (0-0 is not allowed).

local root, tenants = KEYS[1], KEYS[2]
local operation, given, tenant = ARGV[1], ARGV[2], ARGV[3]

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

local function encoded(name)
  return (name:gsub('[^A-Za-z0-9_.~-]', function(byte)
    return string.format('%%%02X', byte:byte())
  end))
end

local function decoded(name)
  return (name:gsub('%%(%x%x)', function(code)
    return string.char(tonumber(code, 16))
  end))
end

local function key(part, name)
  return root .. ':' .. part .. ':' .. encoded(name)
end

local function document_key(kind, id)
  return key('document', kind) .. ':' .. encoded(id)
end

-- The ids of a kind of documents, of conversations when the kind is empty; of one person, of all when it is empty.
local function index(kind, user)
  local all = kind == '' and root .. ':conversations' or key('documents', kind)
  return user == '' and all or all .. ':of:' .. encoded(user)
end

local function ending(kind, id)
  return kind == '' and 'c' .. id or 'd' .. encoded(kind) .. ':' .. id
end

-- The fields of a hash, nil when there is none or its time is over.
local function visible(hash, ...)
  local found = redis.call('HMGET', hash, 'expires_at', ...)
  if not found[1] or (found[1] ~= '' and tonumber(found[1]) <= now) then
    return nil
  end
  return found
end

-- Into every index, or out of every index.
local function enter(kind, id, created, expires_at, user)
  redis.call('ZADD', tenants, 0, tenant)
  redis.call('ZADD', index(kind, ''), created, id)
  if user ~= '' then
    redis.call('ZADD', index(kind, user), created, id)
  end
  if expires_at ~= '' then
    redis.call('ZADD', root .. ':ends', expires_at, ending(kind, id))
  end
  if kind ~= '' then
    redis.call('SADD', root .. ':kinds', kind)
  end
end

local function leave(kind, id, user)
  redis.call('ZREM', index(kind, ''), id)
  redis.call('ZREM', root .. ':ends', ending(kind, id))
  if user and user ~= '' then
    redis.call('ZREM', index(kind, user), id)
  end
  if kind ~= '' and redis.call('EXISTS', index(kind, '')) == 0 then
    redis.call('SREM', root .. ':kinds', kind)
  end
  if redis.call('EXISTS', root .. ':conversations', root .. ':kinds') == 0 then
    redis.call('ZREM', tenants, tenant)
  end
end

-- Each gives how much was there.
local function drop_document(kind, id)
  local user = redis.call('HGET', document_key(kind, id), 'user')
  local count = redis.call('DEL', document_key(kind, id))
  leave(kind, id, user)
  return count
end

-- With its vault: messages, vaults.
local function drop_conversation(id)
  local user, count = redis.call('HGET', key('conversation', id), 'user'), redis.call('XLEN', key('messages', id))
  redis.call('DEL', key('conversation', id), key('messages', id), key('positions', id), key('vectors', id))
  leave('', id, user)
  return count, drop_document('vault', id)
end

local function conversation(id)
  return redis.call('HMGET', key('conversation', id), 'head', 'created_at', 'updated_at', 'expires_at', 'body', 'user')
end

-- All messages as two strings, which clients read quicker than many: numbers (position, time, length of the id, length of
-- the body, for each), and ids and bodies one behind the other.
local function packed(rows)
  local numbers, texts = {}, {}
  for i, row in ipairs(rows) do
    local fields, n, t = row[2], 4 * i, 2 * i
    local id, body = fields[2], fields[6]
    numbers[n - 3], numbers[n - 2], numbers[n - 1], numbers[n] = row[1]:sub(1, -3), fields[4], #id, #body
    texts[t - 1], texts[t] = id, body
  end
  return { table.concat(numbers, ' '), table.concat(texts) }
end

local function entry(id, position)
  return redis.call('XRANGE', key('messages', id), position .. '-1', position .. '-1')[1]
end

local function move(id, found, head)
  local moment = math.max(now, tonumber(found[3]))
  redis.call('HSET', key('conversation', id), 'head', text(head), 'updated_at', text(moment))
end

-- Did who seals take the keys of another person, or keys that have been replaced? Then nothing is written.
local function outdated(id)
  return KEYS[3] and (redis.call('HGET', KEYS[3], 'body') ~= ARGV[4]
    or id and (redis.call('HGET', key('conversation', id), 'user') or '') ~= ARGV[5])
end

local run = {}

function run.create(id, body, lifetime, user)
  if visible(key('conversation', id)) then
    return { 'taken' }
  end
  if outdated() then
    return { 'keys' }
  end
  if redis.call('EXISTS', key('conversation', id)) == 1 then
    drop_conversation(id)
  end
  lifetime = lifetime ~= '' and lifetime or redis.call('GET', root .. ':lifetime') or ''
  redis.call('HSET', key('conversation', id), 'head', '0', 'created_at', text(now), 'updated_at', text(now),
    'expires_at', ends(lifetime), 'body', body, 'user', user)
  enter('', id, text(now), ends(lifetime), user)
  return { 'ok', conversation(id) }
end

function run.show(id)
  return visible(key('conversation', id)) and { 'ok', conversation(id) } or { 'none' }
end

function run.read(id, low, high, order, limit)
  if not visible(key('conversation', id)) then
    return { 'none' }
  end
  local from, to, count = text(tonumber(low) + 1) .. '-0', high .. '-0', tonumber(limit)
  local rows = {}
  if count ~= 0 and order == 'last' then
    rows = redis.call('XREVRANGE', key('messages', id), to, from, 'COUNT', count)
  elseif count ~= 0 then
    rows = redis.call('XRANGE', key('messages', id), from, to, 'COUNT', count)
  end
  return { 'ok', conversation(id), packed(rows) }
end

function run.item(id, name)
  if not visible(key('conversation', id)) then
    return { 'none' }
  end
  local position = redis.call('HGET', key('positions', id), name)
  return position and { 'ok', packed({ entry(id, position) }) } or { 'no item' }
end

-- So many names follow, then as many bodies, and as many again for each further head that they are sealed for. Messages
-- whose names are known are returned for the caller to compare, and nothing is written, unless the caller says that it has
-- compared as many.
function run.append(id, at, compared, sealed_for, count)
  local hash, messages, positions = key('conversation', id), key('messages', id), key('positions', id)
  local found, known, rows, first = visible(hash, 'head', 'updated_at'), {}, {}, 11
  if not found then
    return { 'none' }
  end
  for i = first, first + count - 1 do
    local position = redis.call('HGET', positions, ARGV[i])
    if position then
      known[i] = entry(id, position)
      rows[#rows + 1] = known[i]
    end
  end
  if #rows ~= tonumber(compared) then
    return { 'known', packed(rows) }
  end
  local head = tonumber(found[2])
  if at ~= '' and tonumber(at) ~= head then
    return { 'changed', head }
  end
  if outdated(id) then
    return { 'keys' }
  end
  local skipped = sealed_for == '' and 0 or (head - tonumber(sealed_for)) * count
  if skipped < 0 or first + count + skipped > #ARGV then
    return { 'moved', head }
  end
  for i = first, first + count - 1 do
    if not known[i] and ARGV[i + count + skipped] == '' then -- one that the caller knew has been removed
      return { 'known', packed(rows) }
    end
  end
  local moment = text(math.max(now, tonumber(found[3])))
  rows = {}
  for i = first, first + count - 1 do
    if not known[i] then
      redis.call('XADD', messages, text(head) .. '-1', 'id', ARGV[i], 'at', moment, 'body', ARGV[i + count + skipped])
      redis.call('HSET', positions, ARGV[i], text(head))
      rows[#rows + 1] = { text(head), moment }
      head = head + 1
    end
  end
  redis.call('HSET', hash, 'head', text(head), 'updated_at', moment)
  return { 'ok', rows }
end

function run.remove(id)
  local found, places, first = visible(key('conversation', id), 'head', 'updated_at'), {}, 7
  if not found then
    return { 'none' }
  end
  for i = first, #ARGV do
    places[i] = redis.call('HGET', key('positions', id), ARGV[i])
    if not places[i] then
      return { 'no item', i - first }
    end
  end
  for i = first, #ARGV do
    redis.call('XDEL', key('messages', id), places[i] .. '-1')
    redis.call('HDEL', key('positions', id), ARGV[i])
    redis.call('HDEL', key('vectors', id), places[i])
  end
  move(id, found, tonumber(found[2]) + (#ARGV >= first and 1 or 0))
  return { 'ok', conversation(id) }
end

-- Positions and vectors follow in turns. The conversation must be the one made at that time.
function run.index(id, created)
  local found, first = visible(key('conversation', id), 'created_at'), 8
  if not found or found[2] ~= created then
    return { 'none' }
  end
  if outdated(id) then
    return { 'keys' }
  end
  for i = first, #ARGV, 2 do
    if entry(id, ARGV[i]) then
      redis.call('HSET', key('vectors', id), ARGV[i], ARGV[i + 1])
    end
  end
  return { 'ok' }
end

function run.vectors(id, low)
  if not visible(key('conversation', id)) then
    return { 'none' }
  end
  local all, found = redis.call('HGETALL', key('vectors', id)), {}
  for i = 1, #all, 2 do
    if tonumber(all[i]) > tonumber(low) then
      found[#found + 1] = all[i]
      found[#found + 1] = all[i + 1]
    end
  end
  return { 'ok', found }
end

function run.update(id, body)
  local found = visible(key('conversation', id), 'head', 'updated_at')
  if not found then
    return { 'none' }
  end
  if outdated(id) then
    return { 'keys' }
  end
  redis.call('HSET', key('conversation', id), 'body', body)
  move(id, found, tonumber(found[2]))
  return { 'ok', conversation(id) }
end

function run.delete(id)
  if not visible(key('conversation', id)) then
    return { 'none' }
  end
  drop_conversation(id)
  return { 'ok' }
end

local function document(kind, id)
  return redis.call('HMGET', document_key(kind, id), 'revision', 'created_at', 'updated_at', 'expires_at', 'body', 'user')
end

function run.put(kind, id, body, at, lifetime, user, sealed_for)
  local found = visible(document_key(kind, id), 'revision', 'created_at')
  local revision = found and tonumber(found[2]) or 0
  if at ~= '' and tonumber(at) ~= revision then
    return { 'changed', revision }
  end
  if outdated() then
    return { 'keys' }
  end
  if sealed_for ~= '' and tonumber(sealed_for) ~= revision + 1 then
    return { 'moved', revision }
  end
  local created = found and found[3] or text(now)
  drop_document(kind, id)
  redis.call('HSET', document_key(kind, id), 'revision', text(revision + 1), 'created_at', created,
    'updated_at', text(now), 'expires_at', ends(lifetime), 'body', body, 'user', user)
  enter(kind, id, created, ends(lifetime), user)
  return { 'ok', document(kind, id) }
end

function run.get(kind, id)
  return visible(document_key(kind, id)) and { 'ok', document(kind, id) } or { 'none' }
end

function run.discard(kind, id)
  if not visible(document_key(kind, id)) then
    return { 'none' }
  end
  drop_document(kind, id)
  return { 'ok' }
end

-- Ids by age, the newest first, behind the one named, which need not be about the person.
function run.page(kind, user, after, count)
  local all, own = index(kind, ''), index(kind, user)
  local age = after ~= '' and redis.call('ZSCORE', all, after)
  if after ~= '' and not age then
    return { 'ok', {} }
  end
  local rank = after ~= '' and redis.call('ZREVRANK', own, after)
  if after ~= '' and not rank then
    redis.call('ZADD', own, age, after)
    rank = redis.call('ZREVRANK', own, after)
    redis.call('ZREM', own, after)
    rank = rank - 1
  end
  local start = rank and rank + 1 or 0
  return { 'ok', redis.call('ZREVRANGE', own, start, start + tonumber(count) - 1) }
end

function run.kinds()
  return { 'ok', redis.call('SMEMBERS', root .. ':kinds') }
end

function run.lifetime()
  return { 'ok', redis.call('GET', root .. ':lifetime') }
end

function run.set_lifetime(lifetime)
  if lifetime == '' then
    redis.call('DEL', root .. ':lifetime')
  else
    redis.call('SET', root .. ':lifetime', lifetime)
  end
  return { 'ok' }
end

-- At most so many of what has expired, conversations whole.
function run.sweep(limit)
  local conversations, messages, documents = 0, 0, 0
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', root .. ':ends', '-inf', text(now), 'LIMIT', 0, limit)) do
    if member:sub(1, 1) == 'c' then
      local held, vaults = drop_conversation(member:sub(2))
      conversations, messages, documents = conversations + 1, messages + held, documents + vaults
    else
      local colon = member:find(':', 1, true)
      documents = documents + drop_document(decoded(member:sub(2, colon - 1)), member:sub(colon + 1))
    end
  end
  return { 'ok', conversations, messages, documents }
end

-- At most so many of what is about a person, of all when there is none.
function run.erase(user, limit)
  local ids = redis.call('ZRANGE', index('', user), 0, limit - 1)
  local messages, documents = 0, 0
  for _, id in ipairs(ids) do
    local held, vaults = drop_conversation(id)
    messages, documents = messages + held, documents + vaults
  end
  for _, kind in ipairs(redis.call('SMEMBERS', root .. ':kinds')) do
    local left = limit - #ids - documents
    for _, id in ipairs(left > 0 and redis.call('ZRANGE', index(kind, user), 0, left - 1) or {}) do
      documents = documents + drop_document(kind, id)
    end
  end
  if user == '' then
    redis.call('DEL', root .. ':lifetime')
  end
  return { 'ok', #ids, messages, documents }
end

function run.note(body)
  return { 'ok', redis.call('RPUSH', root .. ':trail', text(now) .. ' ' .. body), text(now) }
end

function run.trail(first, last)
  return { 'ok', redis.call('LRANGE', root .. ':trail', first, last) }
end

-- What an older form left out of the indexes.
run['adopt conversations'] = function()
  for _, id in ipairs(redis.call('ZRANGE', index('', ''), 0, -1)) do
    local found = redis.call('HMGET', key('conversation', id), 'created_at', 'expires_at')
    enter('', id, found[1], found[2], '')
  end
  return { 'ok' }
end

run['adopt documents'] = function(kind)
  for _, id in ipairs(redis.call('ZRANGE', index(kind, ''), 0, -1)) do
    local found = redis.call('HMGET', document_key(kind, id), 'created_at', 'expires_at')
    enter(kind, id, found[1], found[2], '')
  end
  return { 'ok' }
end

return run[operation](unpack(ARGV, 6, math.min(#ARGV, 12)))
