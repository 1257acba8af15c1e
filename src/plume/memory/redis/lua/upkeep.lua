-- What ends, what is noted, what is written anew.

function run.lifetime()
  return { 'ok', redis.call('GET', root .. 'lifetime') }
end

function run.set_lifetime()
  if given.lifetime == '' then
    redis.call('DEL', root .. 'lifetime')
  else
    redis.call('SET', root .. 'lifetime', text(given.lifetime))
  end
  return { 'ok' }
end

-- At most so many of what has expired, conversations whole.
function run.sweep()
  local conversations, messages, documents = 0, 0, 0
  local over = redis.call('ZRANGEBYSCORE', root .. 'ends', '-inf', text(now), 'LIMIT', 0, given.limit)
  for _, member in ipairs(over) do
    if member:sub(1, 1) == 'c' then
      local held, vaults = drop_conversation(member:sub(2))
      conversations, messages, documents = conversations + 1, messages + held, documents + vaults
    else
      local colon = member:find(':', 1, true)
      local kind = member:sub(2, colon - 1):gsub('%%(%x%x)', function(code)
        return string.char(tonumber(code, 16))
      end)
      documents = documents + drop_document(kind, member:sub(colon + 1))
    end
  end
  return { 'ok', conversations, messages, documents }
end

-- At most so many of what is about a person, of all when there is none.
function run.erase()
  local user, limit = given.user, given.limit
  local ids = redis.call('ZRANGE', index('', user), 0, limit - 1)
  local messages, documents = 0, 0
  for _, id in ipairs(ids) do
    local held, vaults = drop_conversation(id)
    messages, documents = messages + held, documents + vaults
  end
  for _, kind in ipairs(redis.call('SMEMBERS', root .. 'kinds')) do
    local left = limit - #ids - documents
    for _, id in ipairs(left > 0 and redis.call('ZRANGE', index(kind, user), 0, left - 1) or {}) do
      documents = documents + drop_document(kind, id)
    end
  end
  if user == '' then
    redis.call('DEL', root .. 'lifetime')
  end
  return { 'ok', #ids, messages, documents }
end

function run.note()
  return { 'ok', redis.call('RPUSH', root .. 'trail', text(now) .. ' ' .. ARGV[3]), text(now) }
end

function run.trail()
  return { 'ok', redis.call('LRANGE', root .. 'trail', text(given.first), text(given.last)) }
end

-- Bodies that were sealed anew, the old one and the new one in turns, for each of `places`; where another stands by now, it
-- stays.
function run.reseal()
  local messages = key('messages', given.id)
  for i, place in ipairs(given.places) do
    local row, old, new = entry(given.id, place), ARGV[1 + 2 * i], ARGV[2 + 2 * i]
    local header, size = row:match('^(%d+ %-?%d+ (%d+) )')
    local start = header and #header + tonumber(size) + 1
    if start and row:sub(start) == old then
      redis.call('LSET', messages, place, row:sub(1, start - 1) .. new)
    end
  end
  return { 'ok' }
end

-- What form 1 left out of the indexes.
function run.adopt_conversations()
  for _, id in ipairs(redis.call('ZRANGE', index('', ''), 0, -1)) do
    local found = redis.call('HMGET', key('conversation', id), 'created_at', 'expires_at', 'user')
    if found[1] then
      enter('', id, found[1], found[2], found[3] or '')
    end
  end
  return { 'ok' }
end

function run.adopt_documents()
  for _, id in ipairs(redis.call('ZRANGE', index(given.kind, ''), 0, -1)) do
    local found = redis.call('HMGET', document_key(given.kind, id), 'created_at', 'expires_at', 'user')
    if found[1] then
      enter(given.kind, id, found[1], found[2], found[3] or '')
    end
  end
  return { 'ok' }
end

-- Until form 2 messages were a stream, where the one at position p was the entry p-1. So many of them are copied in one call;
-- whoever calls again goes on where the copy ends.
function run.adopt_messages()
  local messages, head = key('messages', given.id), redis.call('HGET', key('conversation', given.id), 'head')
  if not head or redis.call('TYPE', messages).ok == 'list' then
    return { 'ok' }
  end
  local copy = messages .. ':list'
  local length = redis.call('LLEN', copy)
  local function fill(to)
    while length < to do
      redis.call('RPUSH', copy, '')
      length = length + 1
    end
  end
  local rows = redis.call('XRANGE', messages, text(length) .. '-0', '+', 'COUNT', given.limit)
  for _, row in ipairs(rows) do
    local place, fields = row[1]:sub(1, -3), row[2]
    fill(tonumber(place))
    redis.call('RPUSH', copy, place .. ' ' .. fields[4] .. ' ' .. #fields[2] .. ' ' .. fields[2] .. fields[6])
    length = length + 1
  end
  if #rows == given.limit then
    return { 'more' }
  end
  fill(tonumber(head))
  if length > 0 then
    redis.call('RENAME', copy, messages)
  end
  return { 'ok' }
end
