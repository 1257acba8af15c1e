-- Documents, and what lists both them and conversations.

function run.put()
  local kind, id, user = given.kind, given.id, given.user
  local found = visible(document_key(kind, id), 'revision', 'created_at')
  local revision = found and tonumber(found[2]) or 0
  if given.at and given.at ~= revision then
    return { 'changed', revision }
  end
  if outdated() then
    return { 'keys' }
  end
  if given.sealed_for and given.sealed_for ~= revision + 1 then
    return { 'moved', revision }
  end
  local created = found and found[3] or text(now)
  drop_document(kind, id)
  redis.call('HSET', document_key(kind, id), 'revision', text(revision + 1), 'created_at', created,
    'updated_at', text(now), 'expires_at', ends(given.lifetime), 'body', ARGV[3], 'user', user)
  enter(kind, id, created, ends(given.lifetime), user)
  return { 'ok', document(kind, id) }
end

function run.get()
  return visible(document_key(given.kind, given.id)) and { 'ok', document(given.kind, given.id) } or { 'none' }
end

function run.discard()
  if not visible(document_key(given.kind, given.id)) then
    return { 'none' }
  end
  drop_document(given.kind, given.id)
  return { 'ok' }
end

-- Ids by age, the newest first, behind the one named, which need not be about the person.
function run.page()
  local all, own = index(given.kind, ''), index(given.kind, given.user)
  local after = given.after
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
  return { 'ok', redis.call('ZREVRANGE', own, start, start + given.limit - 1) }
end

function run.kinds()
  return { 'ok', redis.call('SMEMBERS', root .. 'kinds') }
end
