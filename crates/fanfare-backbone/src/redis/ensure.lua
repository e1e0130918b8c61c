-- The head of every script that writes: what time it is, and whose history this is.
--
-- The epoch lives in a key and is replicated along, so it alone would survive a failover unchanged. What tells one
-- history from another is the server's own replication identity: where it isn't the stored one, a new epoch begins.
--
-- KEYS[1] is the partition's hash, KEYS[2] channels' last positions, KEYS[3] the same of channels that are never
-- forgotten, for when they have left the second; ARGV[1] layout version, ARGV[2] number of partitions, ARGV[3] the name of the epoch
-- that begins if one has to (Redis seeds Lua's random numbers the same each time).

-- Lua would write a position as 1.79e+15; a double counts it exactly all the same. `%d` is several times as fast as
-- `%.0f`, and right wherever C's long has 64 bits.
local DECIMAL = string.format('%d', 2 ^ 52) == '4503599627370496' and '%d' or '%.0f'
local function number(value)
  return string.format(DECIMAL, value)
end

local function failed(reply)
  return type(reply) == 'table' and reply.err
end

local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- Whether any channel is never forgotten: most deployments have none.
local function keeps_any()
  return #redis.call('ZRANGE', KEYS[3], 0, 0) > 0
end

-- Gives where the partition stands, or else an error to answer with.
local function ensure(now)
  local replication = redis.pcall('INFO', 'replication')
  if failed(replication) then
    return nil, redis.error_reply('FANFARE_INFO ' .. replication.err)
  end
  -- What is published to a replica is not replicated, and overwritten.
  if string.match(replication, 'role:(%a+)') ~= 'master' then
    return nil, redis.error_reply('FANFARE_REPLICA this server is a replica')
  end
  local id = string.match(replication, 'master_replid:(%w+)')
  if not id then
    return nil, redis.error_reply('FANFARE_INFO it does not tell master_replid')
  end

  local kept = redis.call('HMGET', KEYS[1], 'v', 'P', 'e', 'q', 'b', 'i', 'r', 'l', 'f')
  local version, partitions, epoch, previous, base = kept[1], kept[2], kept[3], kept[4], kept[5]
  local known_id, known_run, last, floor = kept[6], kept[7], kept[8], kept[9]
  if version and version ~= ARGV[1] then
    return nil, redis.error_reply('FANFARE_LAYOUT ' .. version)
  end
  if partitions and partitions ~= ARGV[2] then
    return nil, redis.error_reply('FANFARE_PARTITIONS ' .. partitions)
  end

  if not epoch or id ~= known_id then
    local server = redis.pcall('INFO', 'server')
    if failed(server) then
      return nil, redis.error_reply('FANFARE_INFO ' .. server.err)
    end
    local run = string.match(server, 'run_id:(%w+)') or ''
    if not epoch then
      epoch, previous, base, last, floor = ARGV[3], '', number(now), number(now), number(now)
    else
      -- A primary that gets its first replica changes its identity, too, harmlessly.
      local second = string.match(replication, 'master_replid2:(%w+)') or ''
      if not (run == known_run and string.match(second, '^0+$')) then
        epoch, previous, base = ARGV[3], epoch, last
      end
    end
    redis.call('HSET', KEYS[1], 'v', ARGV[1], 'P', ARGV[2], 'e', epoch, 'q', previous, 'b', base, 'i', id, 'r', run,
      'l', last, 'f', floor)
  end
  return {
    epoch = epoch, previous = previous, base = tonumber(base), last = tonumber(last), floor = tonumber(floor),
  }
end

