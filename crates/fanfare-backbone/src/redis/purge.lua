-- Empties a channel's history. That takes a place of its own in the channel's chain, which subscribers hear of: edges
-- drop their tails, and whoever comes back from below it is told.
--
-- The first write only frees memory, so this also works where none is left.
--
-- KEYS: ensure's, and the history. ARGV after ensure's: the channel, and its Pub/Sub name. Answers with the time, and
-- the line that `publish` has for a draft.

local now = clock()
local state, refused = ensure(now)
if refused then
  return refused
end
local history, channel, name = KEYS[4], ARGV[4], ARGV[5]
local last = redis.call('ZSCORE', KEYS[2], channel) or redis.call('ZSCORE', KEYS[3], channel)
local pos = math.max(state.last + 1, now)
local prev = last and (number(tonumber(last)) .. '=') or (number(state.floor) .. '~')

redis.call('UNLINK', history)
local point = state.epoch .. ' ' .. number(pos)
local sent = redis.pcall('PUBLISH', name, '1 ' .. state.epoch .. ' 2 ' .. number(pos) .. ' ' .. prev .. ' purge')
if failed(sent) then
  return { number(now), 'E ' .. sent.err }
end
redis.call('HSET', KEYS[1], 'l', number(pos))
redis.call('ZADD', KEYS[2], number(pos), channel)
redis.call('ZREM', KEYS[3], channel)
return { number(now), 'N ' .. point }
