-- Conversations and their messages.

function run.create()
  local id, user = given.id, given.user
  if visible(key('conversation', id)) then
    return { 'taken' }
  end
  if outdated() then
    return { 'keys' }
  end
  if redis.call('EXISTS', key('conversation', id)) == 1 then
    drop_conversation(id)
  end
  local lifetime = given.lifetime ~= '' and given.lifetime or redis.call('GET', root .. 'lifetime') or ''
  redis.call('HSET', key('conversation', id), 'head', '0', 'created_at', text(now), 'updated_at', text(now),
    'expires_at', ends(lifetime), 'body', ARGV[3], 'user', user)
  enter('', id, text(now), ends(lifetime), user)
  return { 'ok', conversation(id) }
end

function run.show()
  return visible(key('conversation', given.id)) and { 'ok', conversation(given.id) } or { 'none' }
end

-- So many entries from one position to another, the first or the last of them that are not empty, in any order. Where many
-- are empty, ever more are looked at in one step.
function run.read()
  local found = visible(key('conversation', given.id), 'head')
  if not found then
    return { 'none' }
  end
  local list, rows, limit, width = key('messages', given.id), {}, given.limit, given.limit
  local from, to = given.low + 1, math.min(given.high, tonumber(found[2])) - 1
  while #rows < limit and from <= to do
    local chunk, first, last, step
    if given.order == 'first' then
      chunk = redis.call('LRANGE', list, text(from), text(math.min(to, from + width - 1)))
      from = from + width
      first, last, step = 1, #chunk, 1
    else
      chunk = redis.call('LRANGE', list, text(math.max(from, to - width + 1)), text(to))
      to = to - width
      first, last, step = #chunk, 1, -1
    end
    for i = first, last, step do
      if chunk[i] ~= '' and #rows < limit then
        rows[#rows + 1] = chunk[i]
      end
    end
    width = math.max(width, math.min(2 * width, 4096))
  end
  return { 'ok', conversation(given.id), packed(rows) }
end

function run.item()
  if not visible(key('conversation', given.id)) then
    return { 'none' }
  end
  local position = redis.call('HGET', key('positions', given.id), given.item)
  return position and { 'ok', packed({ entry(given.id, position) }) } or { 'no item' }
end

-- The bodies of all `names`, and as many again for each further head that they are sealed for. Messages whose names are
-- known are returned for the caller to compare, and nothing is written, unless the caller says that it has compared as many.
function run.append()
  local id, names, count = given.id, given.names, #given.names
  local hash, messages, positions = key('conversation', id), key('messages', id), key('positions', id)
  local found, known, rows = visible(hash, 'head', 'updated_at'), {}, {}
  if not found then
    return { 'none' }
  end
  for i, name in ipairs(names) do
    local position = redis.call('HGET', positions, name)
    if position then
      known[i] = true
      rows[#rows + 1] = entry(id, position)
    end
  end
  if damaged(id, found[2]) then
    return { 'damaged' }
  end
  if #rows ~= given.compared then
    return { 'known', packed(rows) }
  end
  local head = tonumber(found[2])
  if given.at and given.at ~= head then
    return { 'changed', head }
  end
  if outdated(id) then
    return { 'keys' }
  end
  local bodies = given.sealed_for and (head - given.sealed_for) * count or 0 -- to pass over, behind the first two of ARGV
  if bodies < 0 or 2 + bodies + count > #ARGV then
    return { 'moved', head }
  end
  bodies = bodies + 2
  for i = 1, count do
    if not known[i] and ARGV[bodies + i] == '' then -- one that the caller knew has been removed
      return { 'known', packed(rows) }
    end
  end
  local first, moment = head, text(math.max(now, tonumber(found[3])))
  for i, name in ipairs(names) do
    if not known[i] then
      local position = text(head)
      redis.call('RPUSH', messages, position .. ' ' .. moment .. ' ' .. #name .. ' ' .. name .. ARGV[bodies + i])
      redis.call('HSET', positions, name, position)
      head = head + 1
    end
  end
  redis.call('HSET', hash, 'head', text(head), 'updated_at', moment)
  return { 'ok', first, moment }
end

function run.remove()
  local id, places = given.id, {}
  local found = visible(key('conversation', id), 'head', 'updated_at')
  if not found then
    return { 'none' }
  end
  if damaged(id, found[2]) then
    return { 'damaged' }
  end
  for i, name in ipairs(given.items) do
    places[i] = redis.call('HGET', key('positions', id), name)
    if not places[i] then
      return { 'no item', i - 1 }
    end
  end
  for i, name in ipairs(given.items) do
    redis.call('HDEL', key('positions', id), name) -- first: a script that has made room may go on when memory is full
    redis.call('HDEL', key('vectors', id), places[i])
    redis.call('LSET', key('messages', id), places[i], '')
  end
  if #places > 0 then
    redis.call('RPUSH', key('messages', id), '')
  end
  move(id, found, tonumber(found[2]) + (#places > 0 and 1 or 0))
  return { 'ok', conversation(id) }
end

-- A vector for each of `places`. The conversation must be the one made at that time.
function run.index()
  local id = given.id
  local found = visible(key('conversation', id), 'created_at')
  if not found or tonumber(found[2]) ~= given.created then
    return { 'none' }
  end
  if outdated(id) then
    return { 'keys' }
  end
  for i, place in ipairs(given.places) do
    if entry(id, place) ~= '' then
      redis.call('HSET', key('vectors', id), place, ARGV[2 + i])
    end
  end
  return { 'ok' }
end

function run.vectors()
  if not visible(key('conversation', given.id)) then
    return { 'none' }
  end
  local all, found = redis.call('HGETALL', key('vectors', given.id)), {}
  for i = 1, #all, 2 do
    if tonumber(all[i]) > given.low then
      found[#found + 1] = all[i]
      found[#found + 1] = all[i + 1]
    end
  end
  return { 'ok', found }
end

function run.update()
  local hash = key('conversation', given.id)
  local found = visible(hash, 'head', 'updated_at')
  if not found then
    return { 'none' }
  end
  if outdated(given.id) then
    return { 'keys' }
  end
  redis.call('HSET', hash, 'body', ARGV[3])
  move(given.id, found, tonumber(found[2]))
  return { 'ok', conversation(given.id) }
end

function run.delete()
  if not visible(key('conversation', given.id)) then
    return { 'none' }
  end
  drop_conversation(given.id)
  return { 'ok' }
end
