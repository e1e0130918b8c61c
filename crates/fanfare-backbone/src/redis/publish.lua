-- Gives drafts their places, in order: appends each to its channel's history and sends it to its subscribers.
--
-- A script that fails half-way keeps what it wrote. So the first write of each draft is the one that may be refused
-- (out of memory, a foreign key under our name), the second is the sending, which rights may forbid, and only then
-- follows what makes it count.
--
-- KEYS: the partition's hash, the channels' last positions, and for each draft its history and its idempotency key
-- (its history once more, where it has none). ARGV after ensure's: history size, history age, forget age and
-- idempotency window (µs), the beginning of the Pub/Sub names; for each draft its channel, the digest of its body
-- ("" where it has no idempotency key), and its entry from the name on. Answers with the time, then a line for each
-- draft.

local FOREVER = 9007199254740992

local size, history_age, forget_age = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local window, names = tonumber(ARGV[7]), ARGV[8]
local now = clock()
local answer = { number(now) }
local state
local swept_all, moved

-- Channels that nobody published to for long: they are forgotten, and the floor rises instead.
local function forgotten()
  if swept_all then
    return {}, state.floor
  end
  local found = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. number(now - forget_age), 'WITHSCORES', 'LIMIT', 0, 2)
  local channels, floor = {}, state.floor
  for i = 1, #found, 2 do
    channels[#channels + 1] = found[i]
    floor = math.max(floor, tonumber(found[i + 1]))
  end
  swept_all = #channels < 2 -- What is published now is young.
  return channels, floor
end

local function publish(history, remembered, channel, body, tail)
  local sweep, floor = forgotten()
  local last = redis.call('ZSCORE', KEYS[2], channel)
  for _, swept in ipairs(sweep) do
    if swept == channel then
      last = nil
    end
  end
  local pos = math.max(state.last + 1, now)
  local prev = last and (number(tonumber(last)) .. '=') or (number(floor) .. '~')
  local entry = '1 ' .. number(pos) .. ' ' .. prev .. tail

  local length = 0
  if size > 0 then
    length = redis.pcall('RPUSH', history, entry)
    if failed(length) then
      return 'E ' .. length.err
    end
  end
  local sent = redis.pcall('PUBLISH', names .. channel, '1 ' .. state.epoch .. ' ' .. entry)
  if failed(sent) then
    if size > 0 then
      redis.call('LTRIM', history, 0, -2)
    end
    return 'E ' .. sent.err
  end

  state.last, state.floor, moved = pos, floor, true
  if #sweep > 0 then
    redis.call('ZREM', KEYS[2], unpack(sweep))
  end
  redis.call('ZADD', KEYS[2], number(pos), channel)
  if size > 0 then
    if length > size then
      redis.call('LTRIM', history, -size, -1)
    end
    if history_age < FOREVER then
      for _ = 1, length > 1 and 4 or 0 do
        local oldest = redis.call('LINDEX', history, 0)
        local place = oldest and tonumber(string.match(oldest, '^%d+ (%d+) '))
        if not place or place + history_age >= now then
          break
        end
        redis.call('LPOP', history)
      end
      redis.call('PEXPIREAT', history, number(math.floor((now + history_age) / 1000)))
    else
      redis.call('PERSIST', history) -- It may have been set otherwise before.
    end
  end
  local point = state.epoch .. ' ' .. number(pos)
  if body ~= '' then
    redis.call('SET', remembered, point .. ' ' .. body, 'PXAT', number(math.floor((now + window) / 1000)))
  end
  return 'N ' .. point
end

-- Gives an error to answer with, if not even an epoch can be had.
local function publish_all()
  for i = 1, #KEYS / 2 - 1 do
    local history, remembered = KEYS[2 * i + 1], KEYS[2 * i + 2]
    local channel, body, tail = ARGV[3 * i + 6], ARGV[3 * i + 7], ARGV[3 * i + 8]
    local before = body ~= '' and redis.call('GET', remembered)
    if before then
      local point, kept = string.match(before, '^(%w+ %d+) (%x+)$')
      answer[i + 1] = kept == body and ('R ' .. point) or 'M'
    else
      if not state then
        local refused
        state, refused = ensure(now)
        if refused then
          return refused
        end
      end
      answer[i + 1] = publish(history, remembered, channel, body, tail)
    end
  end
end

-- Where the partition stands is written once for all drafts, also if one of them fails in the middle.
local ran, refused = pcall(publish_all)
if moved then
  redis.call('HSET', KEYS[1], 'l', number(state.last), 'f', number(state.floor))
end
if not ran then
  error(refused)
end
return refused or answer
