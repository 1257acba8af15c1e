-- Every operation of the Redis store, one call each: Redis runs nothing else meanwhile, so it is done wholly or not at all.
-- What writes for a caller checks everything before, because Redis does not roll back.
--
-- A call is a script of its own: those parts of this file that it needs, which empty lines divide, then the function of the
-- operation. For Redis makes every function of a script anew at each call.
--
-- KEYS: 1 the tenant's root, with which all its keys begin, its colon included, 2 the names of all tenants; of who seals
-- also 3 the document with the keys.
-- ARGV: 1 what the operation is told, a JSON object: always `tenant`, its name, and `now`, the time in microseconds, unless
-- the server's own counts; of who seals also `whose`, the person whose keys these are. 2 what who seals takes the body of
-- that document for; then bodies.
--
-- ROOT:conversation:ID   hash        ROOT:conversations             ids by age
-- ROOT:messages:ID       list        ROOT:conversations:of:USER     those about a person
-- ROOT:positions:ID      of the ids  ROOT:kinds                     of documents
-- ROOT:vectors:ID        by position ROOT:documents:KIND            ids by age
-- ROOT:document:KIND:ID  hash        ROOT:documents:KIND:of:USER    those about a person
-- ROOT:lifetime          of new conversations, in microseconds
-- ROOT:trail             the lines of the audit trail: time and body
-- ROOT:ends              what ends when: `c` and an id, or `d`, the kind in percent-encoding, a colon and an id
--
-- The message at position p is the list's entry p: the position, the time and the length of the id, each with a space behind
-- it, then the id and the body. Where a message was removed the entry is empty. A list is as long as the head says; a writer
-- looks, for else it would write to the place of another message.

local root, tenants, belief = KEYS[1], KEYS[2], ARGV[2]
local given = cjson.decode(ARGV[1])

local function text(number)
  return string.format('%.0f', number)
end

local function clock()
  if given.now then
    return given.now
  end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local now = clock()

local function ends(lifetime)
  return lifetime == '' and '' or text(now + tonumber(lifetime))
end

local function encoded(name)
  if not name:find('[^A-Za-z0-9_.~-]') then
    return name
  end
  return (name:gsub('[^A-Za-z0-9_.~-]', function(byte)
    return string.format('%%%02X', byte:byte())
  end))
end

local function key(part, name)
  return root .. part .. ':' .. encoded(name)
end

local function document_key(kind, id)
  return key('document', kind) .. ':' .. encoded(id)
end

-- The ids of a kind of documents, of conversations when the kind is empty; of one person, of all when it is empty.
local function index(kind, user)
  local all = kind == '' and root .. 'conversations' or key('documents', kind)
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
  redis.call('ZADD', tenants, 0, given.tenant)
  redis.call('ZADD', index(kind, ''), created, id)
  if user ~= '' then
    redis.call('ZADD', index(kind, user), created, id)
  end
  if expires_at ~= '' then
    redis.call('ZADD', root .. 'ends', expires_at, ending(kind, id))
  end
  if kind ~= '' then
    redis.call('SADD', root .. 'kinds', kind)
  end
end

local function leave(kind, id, user)
  redis.call('ZREM', index(kind, ''), id)
  redis.call('ZREM', root .. 'ends', ending(kind, id))
  if user and user ~= '' then
    redis.call('ZREM', index(kind, user), id)
  end
  if kind ~= '' and redis.call('EXISTS', index(kind, '')) == 0 then
    redis.call('SREM', root .. 'kinds', kind)
  end
  if redis.call('EXISTS', root .. 'conversations', root .. 'kinds') == 0 then
    redis.call('ZREM', tenants, given.tenant)
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
  local user, count = redis.call('HGET', key('conversation', id), 'user'), redis.call('HLEN', key('positions', id))
  redis.call('DEL', key('conversation', id), key('messages', id), key('positions', id), key('vectors', id))
  leave('', id, user)
  return count, drop_document('vault', id)
end

local function conversation(id)
  return redis.call('HMGET', key('conversation', id), 'head', 'created_at', 'updated_at', 'expires_at', 'body', 'user')
end

local function document(kind, id)
  return redis.call('HMGET', document_key(kind, id), 'revision', 'created_at', 'updated_at', 'expires_at', 'body', 'user')
end

-- All entries as two strings, which clients read quicker than many: their lengths, and they themselves one behind the other.
local function packed(entries)
  local lengths = {}
  for i = 1, #entries do
    lengths[i] = #entries[i]
  end
  return { table.concat(lengths, ' '), table.concat(entries) }
end

-- Empty where there is no message.
local function entry(id, position)
  return redis.call('LINDEX', key('messages', id), position) or ''
end

local function damaged(id, head)
  return redis.call('LLEN', key('messages', id)) ~= tonumber(head)
end

local function move(id, found, head)
  local moment = math.max(now, tonumber(found[3]))
  redis.call('HSET', key('conversation', id), 'head', text(head), 'updated_at', text(moment))
end

-- Did who seals take the keys of another person, or keys that have been replaced? Then nothing is written.
local function outdated(id)
  return KEYS[3] and (redis.call('HGET', KEYS[3], 'body') ~= belief
    or id and (redis.call('HGET', key('conversation', id), 'user') or '') ~= given.whose)
end
