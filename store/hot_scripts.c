/* What Redis does in one step. The first write of a script is the one that fails where Redis is
 * full or may only be read; a key that somebody made something else holds nothing up. */
#include "store/hot_internal.h"

/* KEYS: job, usage, feed. ARGV: 1 offset, 2 offset of the one before + 1, 3 offset + 1, 4 status, 5
 * job, 6 how long to keep it (ms, 0: not at all), 7 how long to keep usage (s), 8 cost, 9…
 * counters. Gives 1 when it was new, 0 when Redis had it, -1 when others are missing before it. */
#define END_SCRIPT \
    "local feed = redis.call('HMGET', KEYS[3], 'position', 'silent')\n" \
    "local position, offset = tonumber(feed[1] or -1), tonumber(ARGV[1])\n" \
    "if position < tonumber(ARGV[2]) then return -1 end\n" \
    "if position > offset then return 0 end\n" \
    "local was = redis.pcall('HGET', KEYS[1], 'job')\n" \
    "redis.call('HSET', KEYS[3], 'position', ARGV[3])\n" \
    "redis.pcall('SREM', 'genq:running', string.sub(KEYS[1], 10))\n" \
    "if was == ARGV[5] then return 0 end\n" \
    "if type(was) == 'table' then redis.call('DEL', KEYS[1]) end\n" \
    "if tonumber(ARGV[6]) > 0 then\n" \
    "  redis.call('HSET', KEYS[1], 'status', ARGV[4], 'job', ARGV[5])\n" \
    "  redis.call('HDEL', KEYS[1], 'attempts', 'node', 'worker', 'started_at')\n" \
    "  redis.call('PEXPIRE', KEYS[1], ARGV[6])\n" \
    "else\n" \
    "  redis.call('DEL', KEYS[1])\n" \
    "end\n" \
    "for i = 9, #ARGV, 2 do redis.pcall('HINCRBY', KEYS[2], ARGV[i], ARGV[i + 1]) end\n" \
    "if ARGV[8] ~= '0' then redis.pcall('HINCRBYFLOAT', KEYS[2], 'cost', ARGV[8]) end\n" \
    "redis.call('EXPIRE', KEYS[2], ARGV[7])\n" \
    "if offset >= tonumber(feed[2] or 0) and ARGV[5] ~= '' then\n" \
    "  redis.call('PUBLISH', 'genq:completions', ARGV[5])\n" \
    "end\n" \
    "return 1\n"

/* KEYS: job. ARGV: 1 status, 2 job or '', 3 attempts, 4 node or '', 5 how long to keep it (ms), 6
 * 'new' where anything that is known already is newer, 7 worker or '', 8 when it began (wall ms).
 * What a worker takes back another may have told of meanwhile. Gives whether it was written. */
#define STATE_SCRIPT \
    "local was = redis.pcall('HMGET', KEYS[1], 'status', 'worker', 'job')\n" \
    "local status = was[1]\n" \
    "if was.err or status == 'succeeded' or status == 'failed' or status == 'cancelled'\n" \
    "  or status == 'expired' then return 0 end\n" \
    "if status and ARGV[6] == 'new' then\n" \
    "  if not was[3] and ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'job', ARGV[2]) end\n" \
    "  return 0\n" \
    "end\n" \
    "if ARGV[1] ~= 'running' and was[2] and was[2] ~= ARGV[7] then return 0 end\n" \
    "redis.call('HSET', KEYS[1], 'status', ARGV[1], 'attempts', ARGV[3])\n" \
    "if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'job', ARGV[2]) end\n" \
    "if ARGV[8] ~= '0' then redis.call('HSET', KEYS[1], 'started_at', ARGV[8]) end\n" \
    "if ARGV[1] == 'running' then\n" \
    "  redis.call('HSET', KEYS[1], 'node', ARGV[4], 'worker', ARGV[7])\n" \
    "  redis.pcall('SADD', 'genq:running', string.sub(KEYS[1], 10))\n" \
    "else\n" \
    "  redis.call('HDEL', KEYS[1], 'node', 'worker')\n" \
    "  redis.pcall('SREM', 'genq:running', string.sub(KEYS[1], 10))\n" \
    "end\n" \
    "redis.call('PEXPIRE', KEYS[1], ARGV[5])\n" \
    "return 1\n"

/* KEYS: jobs; gives of each what `view` does. None: all that run, each by name and then that. A
 * worker that has no heartbeat runs nothing. */
#define LOOK_SCRIPT \
    "local function view(key)\n" \
    "  local job = redis.pcall('HMGET', key, 'status', 'attempts', 'started_at', 'node'," \
    " 'worker')\n" \
    "  if job.err or not job[2] then return '' end\n" \
    "  local runs = job[1] == 'running' and job[5] and\n" \
    "    redis.call('EXISTS', 'genq:worker:' .. job[5]) == 1\n" \
    "  return (runs and '1 ' or '0 ') .. job[2] .. ' ' .. (job[3] or '0') .. ' ' ..\n" \
    "    (runs and job[4] or '')\n" \
    "end\n" \
    "local found = {}\n" \
    "for i = 1, #KEYS do found[i] = view(KEYS[i]) end\n" \
    "if #KEYS > 0 then return found end\n" \
    "local names = redis.pcall('SRANDMEMBER', 'genq:running', ARGV[1])\n" \
    "for i = 1, names.err and 0 or #names do\n" \
    "  local seen = view('genq:job:' .. names[i])\n" \
    "  if seen == '' then\n" \
    "    redis.pcall('SREM', 'genq:running', names[i])\n" \
    "  else\n" \
    "    found[#found + 1] = names[i]\n" \
    "    found[#found + 1] = seen\n" \
    "  end\n" \
    "end\n" \
    "return found\n"

/* KEYS: stream. ARGV: 1 whose events these are, 2 the highest id that they had here, 3 '1' where
 * they are all that there are, 4 how long to keep them (ms), 5 attempt; then of each: numbers first
 * and last, what it is, attempt, data. Ids count on, whoever writes. A job that begins elsewhere
 * voids what another has written, who then gives way. Gives {number that stands there, highest id}:
 * go on from it, for it may not be what was sent; {-1}: it is not ours to write. */
#define STREAM_SCRIPT \
    "local last = redis.pcall('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)\n" \
    "if last.err then return {-1, 0} end\n" \
    "local top, has, first, is_ours = tonumber(ARGV[2]), 0, tonumber(ARGV[6]), false\n" \
    "if last[1] then\n" \
    "  is_ours = last[1][2][8] == ARGV[1]\n" \
    "  if not is_ours and top > 0 then return {-1, 0} end\n" \
    "  top = math.max(top, tonumber(string.match(last[1][1], '%d+')))\n" \
    "  if is_ours then has = tonumber(last[1][2][10]) end\n" \
    "end\n" \
    "local function add(what, attempt, data, number)\n" \
    "  if what == 'restart' then redis.call('XTRIM', KEYS[1], 'MAXLEN', 0) end\n" \
    "  top, has = top + 1, tonumber(number)\n" \
    "  redis.call('XADD', KEYS[1], string.format('%d-0', top), 'event', what, 'attempt'," \
    " attempt, 'data', data, 'run', ARGV[1], 'number', number)\n" \
    "end\n" \
    "if is_ours then\n" \
    "  if first ~= has + 1 and (ARGV[8] ~= 'restart' or has >= first) then return {has, top} " \
    "end\n" \
    "elseif ARGV[3] ~= '1' then\n" \
    "  return {0, top}\n" \
    "elseif top > 0 and ARGV[8] ~= 'restart' then\n" \
    "  add('restart', ARGV[5], '', string.format('%d', first - 1))\n" \
    "end\n" \
    "for i = 6, #ARGV, 5 do add(ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 1]) end\n" \
    "redis.call('PEXPIRE', KEYS[1], ARGV[4])\n" \
    "redis.call('PUBLISH', KEYS[1], string.format('%d ', top) .. ARGV[1])\n" \
    "return {has, top}\n"

const char *const hot_scripts[HOT_SCRIPT_COUNT_] = {[HOT_END] = END_SCRIPT,
                                                    [HOT_STATE] = STATE_SCRIPT,
                                                    [HOT_LOOK] = LOOK_SCRIPT,
                                                    [HOT_STREAM] = STREAM_SCRIPT};
