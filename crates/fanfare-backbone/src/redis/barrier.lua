-- Says where the partition and some of its channels stand, through the asker's own subscription: where that arrives
-- in the stream is the cut.
--
-- KEYS: ensure's. ARGV after ensure's: the Pub/Sub name to send it to ("" answers with it instead), a nonce, the
-- channels. Answers with the time, and with the marker where it isn't sent.

local now = clock()
local state, refused = ensure(now)
if refused then
  return refused
end
local words = {
  '1', ARGV[5], state.epoch, state.previous ~= '' and state.previous or '-',
  number(state.base), number(state.last), number(state.floor),
}
if #ARGV > 5 then
  -- At most 1,000 channels: unpack fails somewhere between 7,000 and 20,000 values.
  local lasts = redis.call('ZMSCORE', KEYS[2], unpack(ARGV, 6))
  local kept = keeps_any() and redis.call('ZMSCORE', KEYS[3], unpack(ARGV, 6)) or {}
  for i = 1, #ARGV - 5 do
    local last = lasts[i] or kept[i]
    words[#words + 1] = last and number(tonumber(last)) or '-'
  end
end
local marker = table.concat(words, ' ')
if ARGV[4] == '' then
  return { number(now), marker }
end
redis.call('PUBLISH', ARGV[4], marker)
return { number(now) }
