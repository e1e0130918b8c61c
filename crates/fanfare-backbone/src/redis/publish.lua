-- Gives drafts their places, in order: appends each to its channel's history and sends it to its subscribers.
--
-- A script that fails half-way keeps what it wrote. So the first write of each draft is the one that may be refused
-- (out of memory, a foreign key under our name), the second is the sending, which rights may forbid, and only then
-- follows what makes it count.
--
-- KEYS: ensure's, and for each draft its history and its idempotency key (its history once more, where it has none).
-- ARGV after ensure's: forget age and idempotency window (µs), the beginning of the Pub/Sub names; for each draft its
-- channel, the digest of its body ("" where it has no idempotency key), how many events its history keeps, for how long
-- (µs; "" until they are pushed out: then the channel isn't forgotten), and its entry from the name on. Answers with the
-- time, then a line for each draft.

local forget_age, window, names = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local now = clock()
local answer = { number(now) }
local state
local swept_all, moved, keeping

-- Channels that nobody published to for long: they are forgotten, and the floor rises instead. What is never forgotten
-- leaves this place, too, so that nothing waits behind it.
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

-- Age: none is until pushed out.
local function publish(history, remembered, channel, body, size, age, tail)
  local sweep, floor = forgotten()
  local last = redis.call('ZSCORE', KEYS[2], channel)
  for _, swept in ipairs(sweep) do
    if swept == channel then
      last = nil
    end
  end
  if keeping == nil then
    keeping = keeps_any()
  end
  if not last and keeping then
    last = redis.call('ZSCORE', KEYS[3], channel)
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
  if not age then
    redis.call('ZADD', KEYS[3], number(pos), channel)
    keeping = true
  elseif keeping then
    redis.call('ZREM', KEYS[3], channel)
  end
  if size > 0 then
    if length > size then
      redis.call('LTRIM', history, -size, -1)
    end
    if age then
      for _ = 1, length > 1 and 4 or 0 do
        local oldest = redis.call('LINDEX', history, 0)
        local place = oldest and tonumber(string.match(oldest, '^%d+ (%d+) '))
        if not place or place + age >= now then
          break
        end
        redis.call('LPOP', history)
      end
      redis.call('PEXPIREAT', history, number(math.floor((now + age) / 1000)))
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
  for i = 1, (#KEYS - 3) / 2 do
    local history, remembered = KEYS[2 * i + 2], KEYS[2 * i + 3]
    local channel, body, tail = ARGV[5 * i + 2], ARGV[5 * i + 3], ARGV[5 * i + 6]
    local size, age = tonumber(ARGV[5 * i + 4]), tonumber(ARGV[5 * i + 5])
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
      answer[i + 1] = publish(history, remembered, channel, body, size, age, tail)
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
