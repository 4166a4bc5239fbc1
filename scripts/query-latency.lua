-- For wrk: asks questions of one kind, each about a video drawn at random, and prints what scripts/query-latency tabulates.

local kind, videos, now_ms = os.getenv("KIND"), tonumber(os.getenv("VIDEOS")), tonumber(os.getenv("NOW_MS"))
local minute, hour, day = 60000, 3600000, 86400000

-- The lower the number, the more events.
local function video(among) return string.format("v%07d", math.random(0, (among or videos) - 1)) end

local function stats(length, granularity, end_ms, among)
    local last = math.floor((end_ms or now_ms) / minute) * minute
    return string.format("/v1/videos/%s/stats?granularity=%s&start=%d&end=%d", video(among), granularity, last - length, last)
end

local function batch()
    local questions = {}
    for n = 1, 100 do
        questions[n] = string.format('{"video_id":"%s","granularity":"all","start":%d,"end":%d}', video(), now_ms - hour, now_ms)
    end
    return wrk.format("POST", "/v1/stats", { ["content-type"] = "application/json" }, "[" .. table.concat(questions, ",") .. "]")
end

local asks = {
    ["one minute"] = function() return stats(minute, "minute", now_ms - math.random(0, day)) end,
    ["a day by minute"] = function() return stats(day, "minute") end,
    ["a day by minute, each with events"] = function() return stats(day, "minute", now_ms, 1) end,
    ["a day as one"] = function() return stats(day, "all") end,
    ["30 days by hour"] = function() return stats(30 * day, "hour") end,
    ["30 days by day"] = function() return stats(30 * day, "day") end,
    ["p99 of 30 days"] = function() return stats(30 * day, "all") .. "&function=p99" end,
    ["top 10 of the hour"] = function() return "/v1/top?span=hour" end,
    ["top 10 of today"] = function() return "/v1/top?span=day" end,
    ["top 10 of any day"] = function() return string.format("/v1/top?start=%d&end=%d", now_ms - day, now_ms) end,
}

init = function() math.randomseed(tonumber(os.getenv("SEED"))) end

request = function()
    if kind == "100 at once" then return batch() end
    return wrk.format("GET", asks[kind]())
end

done = function(summary, latency)
    local ms = function(us) return string.format("%.2f", us / 1000) end
    local errors = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
    io.write(string.format("| %s | %s | %s | %s | %d | %d |\n", kind, ms(latency:percentile(50)), ms(latency:percentile(99)),
        ms(latency.max), summary.requests / summary.duration * 1e6, errors))
end
