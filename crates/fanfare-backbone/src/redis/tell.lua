-- A node tells what has changed of who listens there, and renews the lease of all that it has told.
--
-- KEYS[1]: names, all with the same score, so that pages of them can be read; KEYS[2]: counts of what has no score
-- (users, u…), and of what has more than one connection; `v` is the number of the last report. ARGV: the number of the
-- report before this one ("": forget all that was told before), this one's, the lease in ms, then at most 1,000 names
-- and counts. Answers 1, or 0 where the report before isn't the one that is known: then nothing has changed.

local names, counts = KEYS[1], KEYS[2]
if ARGV[1] == '' then
  redis.call('UNLINK', names, counts)
elseif redis.call('HGET', counts, 'v') ~= ARGV[1] then
  return 0
end

local listed, unlisted, several, single = {}, {}, {}, {}
for i = 4, #ARGV, 2 do
  local name, count = ARGV[i], tonumber(ARGV[i + 1])
  local is_user = string.sub(name, 1, 1) == 'u'
  if count == 0 then
    unlisted[#unlisted + 1] = name
  elseif not is_user then
    listed[#listed + 1] = '0'
    listed[#listed + 1] = name
  end
  if count > 1 or (count == 1 and is_user) then
    several[#several + 1] = name
    several[#several + 1] = ARGV[i + 1]
  else
    single[#single + 1] = name
  end
end

-- What adds comes first: it may be refused for memory, and what a script has written stays.
if #listed > 0 then
  redis.call('ZADD', names, unpack(listed))
end
redis.call('PEXPIRE', names, ARGV[3])
if #unlisted > 0 then
  redis.call('ZREM', names, unpack(unlisted))
end
if #single > 0 then
  redis.call('HDEL', counts, unpack(single))
end
redis.call('HSET', counts, 'v', ARGV[2], unpack(several))
redis.call('PEXPIRE', counts, ARGV[3])
return 1
