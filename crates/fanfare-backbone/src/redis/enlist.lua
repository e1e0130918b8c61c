-- Enlists a node, so that readers know whose keys to read, and strikes those off whose lease has ended.
--
-- KEYS[1]: nodes, scored by when their lease ends. ARGV: the node, its lease in ms.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[2])), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
