-- The table of users who were disconnected: reads it, or adds a row to it.
--
-- KEYS[1]: the rows, by when each may be forgotten (ms). ARGV: the time (ms), and to add one: when the row may be
-- forgotten, the row, how many there may be, when the table may go. Answers with all rows that count, which are few
-- enough for one answer, or else with whether there was room (1 or 0).

local rows, now = KEYS[1], ARGV[1]
if #ARGV == 1 then
  return redis.call('ZRANGEBYSCORE', rows, '(' .. now, '+inf')
end
local over = redis.call('ZRANGEBYSCORE', rows, '-inf', now, 'LIMIT', 0, 1000)
if #over > 0 then
  redis.call('ZREM', rows, unpack(over))
end
if #redis.call('ZRANGEBYSCORE', rows, '-inf', '+inf', 'LIMIT', tonumber(ARGV[4]) - 1, 1) > 0 then
  return { '0' }
end
redis.call('ZADD', rows, ARGV[2], ARGV[3])
redis.call('PEXPIREAT', rows, ARGV[5])
return { '1' }
