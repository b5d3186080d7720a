"""What the server does in one piece: the scripts of the store, in Lua.

KEYS[1] is the due set in those that move promotions. Each may run twice, because an answer can be lost on its way. Times are
milliseconds of the server's own clock; a script sees one instant.
"""

NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local function score(ms) return string.format('%.3f', ms) end
"""

# ARGV: the changes as JSON, the delivery or '', how long it is kept (ms).
# Nothing is written before everything is checked. A record that is already as we would leave it counts as saved.
# A repetition writes once more what is there: WAIT confirms only what came before on its own connection.
SAVE = (
    NOW
    + """
local changes, delivery = cjson.decode(ARGV[1]), '{gp}:req:' .. ARGV[2]
if ARGV[2] ~= '' then
  local made = redis.call('GET', delivery)
  if made then
    redis.call('SET', delivery, made, 'KEEPTTL')
    return {'SEEN', made}
  end
end

local saved = 0
for _, change in ipairs(changes) do
  local found = redis.call('HMGET', '{gp}:p:' .. change.id, 'edition', 'record')
  local edition = tonumber(found[1] or 0)
  if edition == change.edition and found[2] == change.record then
    saved = saved + 1
  elseif edition ~= change.edition - 1 then
    return {'CONFLICT', change.id}
  end
end
if saved == #changes then
  redis.call('HSET', '{gp}:p:' .. changes[1].id, 'edition', changes[1].edition)
  return {'OK', ''}
end
if saved > 0 then return {'CONFLICT', changes[1].id} end

local owners, moved = {}, {}
local function owner(slot)
  if owners[slot] == nil then
    local id = redis.call('GET', slot)
    -- One whose record is gone owns nothing: nobody could ever give the slot back.
    owners[slot] = id and redis.call('EXISTS', '{gp}:p:' .. id) == 1 and id or false
  end
  return owners[slot]
end
local function is_followed(slot) return string.sub(slot, 1, 12) == '{gp}:follow:' end
-- What a newer version of the bot follows we cannot end, and it ends by itself when it sees ours.
local function is_newer(id, change)
  return tonumber(redis.call('HGET', '{gp}:p:' .. id, 'schema') or 0) > change.reads
end
local function move(slot, id) owners[slot], moved[slot] = id, true end
for _, change in ipairs(changes) do
  for _, slot in ipairs(change.gives) do
    if owner(slot) == change.id then move(slot, false) end
  end
end
for _, change in ipairs(changes) do
  for _, slot in ipairs(change.takes) do
    local other = owner(slot)
    if other and other ~= change.id and is_followed(slot) and is_newer(other, change) then
      move(slot, change.id)
    elseif other and other ~= change.id then
      return {slot == '{gp}:hold:' .. change.target and 'BUSY' or 'CONFLICT', other}
    elseif not other then
      move(slot, change.id)
    end
  end
end

for slot in pairs(moved) do
  if owners[slot] then redis.call('SET', slot, owners[slot]) else redis.call('DEL', slot) end
end
for _, change in ipairs(changes) do
  local id, at = change.id, score(now)
  redis.call('HSET', '{gp}:p:' .. id, 'edition', change.edition, 'record', change.record)
  -- The first form of a record goes without: every version can read it, and there are many of them.
  if change.schema > 1 then redis.call('HSET', '{gp}:p:' .. id, 'schema', change.schema) end
  redis.call('RPUSH', '{gp}:p:' .. id .. ':e', change.event)
  if change.from ~= change.to then
    redis.call('ZREM', '{gp}:ph:' .. change.from, id)
    redis.call('ZADD', '{gp}:ph:' .. change.to, at, id)
  end
  if change.edition == 1 then
    redis.call('ZADD', '{gp}:ix:' .. change.target, at, id)
  end
  -- What was found about it decides nothing any more; whoever takes the step again after a crash may ask once more.
  if not change.keeps then redis.call('PEXPIRE', '{gp}:p:' .. id .. ':dossier', tonumber(ARGV[3])) end
  -- Where somebody works on it, `rest` sees that it has moved on; two at once would tell people twice.
  local lease = redis.call('HGET', '{gp}:leases', id)
  if not lease or tonumber(lease) <= now then redis.call('ZADD', KEYS[1], at, id) end
end
if ARGV[2] ~= '' then redis.call('SET', delivery, changes[1].id, 'PX', ARGV[3]) end
redis.call('PUBLISH', '{gp}:wake', changes[1].id)
return {'OK', changes[1].id}
"""
)

# ARGV: a delivery, what is remembered of it, how long (ms). Returns what is remembered now: the first word counts.
# A repetition writes once more what is there, as above.
SETTLE = """
local delivery = '{gp}:req:' .. ARGV[1]
redis.call('SET', delivery, ARGV[2], 'NX', 'PX', ARGV[3])
local made = redis.call('GET', delivery)
redis.call('SET', delivery, made, 'KEEPTTL')
return {'SEEN', made}
"""

# KEYS: what people have seen. ARGV: it as JSON, the edition that it follows. One without an edition is the first.
SAVE_CARD = """
local found = redis.call('GET', KEYS[1])
if found == ARGV[1] then return 'OK' end
local is_read, card = pcall(cjson.decode, found or '{}')
if (is_read and card.edition or 0) ~= tonumber(ARGV[2]) then return 'CONFLICT' end
redis.call('SET', KEYS[1], ARGV[1])
return 'OK'
"""

# ARGV: how many at most, the lease (ms), the schema, who asks. A newer version's records are passed over, a thousand at the most.
CLAIM = (
    NOW
    + """
local limit, ids, passed, claimed = tonumber(ARGV[1]), {}, 0, {}
while #ids < limit and passed < 1000 do
  local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', score(now), 'LIMIT', passed, limit)
  if #due == 0 then break end
  for _, id in ipairs(due) do
    local schema = redis.call('HGET', '{gp}:p:' .. id, 'schema')
    if #ids == limit or claimed[id] or schema and tonumber(schema) > tonumber(ARGV[3]) then
      passed = passed + 1
    else
      redis.call('ZADD', KEYS[1], score(now + ARGV[2]), id)
      redis.call('HSET', '{gp}:leases', id, score(now + ARGV[2]))
      redis.call('HSET', '{gp}:workers', id, ARGV[4])
      ids[#ids + 1], claimed[id] = id, true
    end
  end
end
return ids
"""
)

# ARGV: the lease (ms), who asks, then the ids. What was put to rest meanwhile stays so, and what somebody else has
# claimed meanwhile is left to that one.
RENEW = (
    NOW
    + """
for i = 3, #ARGV do
  if redis.call('HGET', '{gp}:workers', ARGV[i]) == ARGV[2] then
    redis.call('ZADD', KEYS[1], score(now + ARGV[1]), ARGV[i])
    redis.call('HSET', '{gp}:leases', ARGV[i], score(now + ARGV[1]))
  end
end
"""
)

# ARGV: id, the edition that was worked on, the delay (ms) or '' for never, who asks.
# Whoever was slower than its lease does not end that of the one who works on it now.
REST = (
    NOW
    + """
local worker, lease = redis.call('HGET', '{gp}:workers', ARGV[1]), redis.call('HGET', '{gp}:leases', ARGV[1])
if worker and worker ~= ARGV[4] and lease and tonumber(lease) > now then return end
redis.call('HDEL', '{gp}:leases', ARGV[1])
redis.call('HDEL', '{gp}:workers', ARGV[1])
local woken = redis.call('HDEL', '{gp}:woken', ARGV[1]) == 1
local edition = redis.call('HGET', '{gp}:p:' .. ARGV[1], 'edition')
if edition and (woken or edition ~= ARGV[2]) then
  redis.call('ZADD', KEYS[1], score(now), ARGV[1])
  redis.call('PUBLISH', '{gp}:wake', ARGV[1])
elseif edition and ARGV[3] ~= '' then
  redis.call('ZADD', KEYS[1], score(now + ARGV[3]), ARGV[1])
else
  redis.call('ZREM', KEYS[1], ARGV[1])
end
"""
)

# ARGV: id. What does not exist cannot become due; whoever works on it looks once more.
WAKE = (
    NOW
    + """
local lease = redis.call('HGET', '{gp}:leases', ARGV[1])
if redis.call('EXISTS', '{gp}:p:' .. ARGV[1]) == 0 then return end
if lease and tonumber(lease) > now then
  redis.call('HSET', '{gp}:woken', ARGV[1], 1)
else
  redis.call('ZADD', KEYS[1], score(now), ARGV[1])
  redis.call('PUBLISH', '{gp}:wake', ARGV[1])
end
"""
)

# KEYS: a branch's turn, and the revision that the last one left there. ARGV: who asks, the lease (ms).
TAKE_TURN = """
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return {'', redis.call('GET', KEYS[2]) or ''}
end
return {'OURS', redis.call('GET', KEYS[2]) or ''}
"""

# KEYS: as above. ARGV: whose turn it was, the revision or '', how long that is told (ms).
END_TURN = """
if ARGV[2] ~= '' then redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3]) end
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""

# ARGV: a phase, how long ago (ms), how many to pass over, how many at most. Longest ago first.
ENDED = (
    NOW
    + """
return redis.call('ZRANGEBYSCORE', '{gp}:ph:' .. ARGV[1], '-inf', score(now - ARGV[2]), 'LIMIT', ARGV[3], ARGV[4])
"""
)

# ARGV: id, edition, phase, target, requester. Returns whether it was forgotten; not what anybody still works with,
# nor what is not as it was read. Older versions of the bot kept an index by requester, and one of everything.
FORGET = """
local id, key = ARGV[1], '{gp}:p:' .. ARGV[1]
if redis.call('HGET', key, 'edition') ~= ARGV[2]
  or redis.call('ZSCORE', KEYS[1], id)
  or redis.call('GET', '{gp}:hold:' .. ARGV[4]) == id
  or redis.call('GET', '{gp}:follow:' .. ARGV[4]) == id
then
  return 0
end
redis.call('DEL', key, key .. ':e', key .. ':card', key .. ':look', key .. ':dossier')
redis.call('HDEL', '{gp}:woken', id)
for _, index in ipairs({'ph:' .. ARGV[3], 'ix:' .. ARGV[4], 'ix:by:' .. ARGV[5], 'ix:all'}) do
  redis.call('ZREM', '{gp}:' .. index, id)
end
return 1
"""

# What stands beside the promotions. Each call has a name of its own, under which a repetition knows what the first try did.

# KEYS: the locks by scope. ARGV: a scope, its lock as JSON, how long one that is over is kept (ms).
# Where two clocks differ, a lock must not go before everybody agrees that it is over.
LOCK = (
    NOW
    + """
local locks = redis.call('HGETALL', KEYS[1])
for i = 1, #locks, 2 do
  local is_read, lock = pcall(cjson.decode, locks[i + 1])
  local ends = is_read and type(lock) == 'table' and tonumber(lock.ends)
  if ends and ends < now - ARGV[3] then redis.call('HDEL', KEYS[1], locks[i]) end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
"""
)

# KEYS: a hash. ARGV: a field, its value.
PUT = "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])"

# KEYS: a hash, the call. ARGV: a field, its value as it was read, how long the call is remembered (ms).
# Returns whether it was taken away by this call.
TAKE_AWAY = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return redis.call('EXISTS', KEYS[2]) end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], '', 'PX', ARGV[3])
return 1
"""

# KEYS: the verdicts of a version, and a delivery where there is one. ARGV: the check and the digest, the verdict as
# JSON, its time (µs), the call, how many verdicts at most, how long they are kept (ms), and the delivery (ms).
# Returns whether the verdict was kept by this call. Where nothing changes it writes once more what is there: WAIT
# confirms only what came before on its own connection.
REPORT = """
local function read(text)
  local is_read, found = pcall(cjson.decode, text or '')
  return is_read and type(found) == 'table' and found or {}
end
local function time(text) return tonumber(read(text).order) or -math.huge end

local kept = redis.call('HGET', KEYS[1], ARGV[1])
local is_repeated = read(kept).call == ARGV[4]
local is_new = not is_repeated
if is_new and KEYS[2] then
  is_new = redis.call('SET', KEYS[2], ARGV[4], 'NX', 'PX', ARGV[7]) and true or false
end
if not is_new or time(kept) >= tonumber(ARGV[3]) then
  if kept then redis.call('HSET', KEYS[1], ARGV[1], kept) end
  return is_repeated and 1 or 0
end

redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[5]) then
  local verdicts = redis.call('HGETALL', KEYS[1])
  local oldest = 1
  for i = 3, #verdicts, 2 do
    if time(verdicts[i + 1]) < time(verdicts[oldest + 1]) then oldest = i end
  end
  redis.call('HDEL', KEYS[1], verdicts[oldest])
end
return 1
"""

# KEYS: the wishes, by the time at which each is over. ARGV: a wish as JSON, how long it is kept (ms).
WISH = (
    NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', score(now))
redis.call('ZADD', KEYS[1], score(now + ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
)

# KEYS: the wishes. Longest ago first.
WISHES = (
    NOW
    + """
return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. score(now), '+inf')
"""
)

# KEYS: the wishes, the call. ARGV: a wish as JSON, how long the call is remembered (ms).
# Returns whether this call has taken it away.
GRANT = (
    NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', score(now))
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return redis.call('EXISTS', KEYS[2]) end
redis.call('SET', KEYS[2], '', 'PX', ARGV[2])
return 1
"""
)

# KEYS: what is done once. ARGV: the call, for how long (ms). Returns whether this call is the first.
ONCE = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) or redis.call('GET', KEYS[1]) == ARGV[1] then return 1 end
return 0
"""

# KEYS: who has taken how many, by the time of each. ARGV: the call, how many at most, within how long (ms).
# Returns whether this call has taken one. What was refused counts for nothing.
TAKE = (
    NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', score(now - ARGV[3]))
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 1 end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], score(now), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
)

# KEYS: any; it names the server that is asked. Returns its time in whole milliseconds.
CLOCK = (
    NOW
    + """
return string.format('%.0f', now)
"""
)
