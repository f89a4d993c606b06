-- Posts the file that BODY names, with the headers of HEADERS ("Name: value", one a line); prints a line of JSON.
local file = assert(io.open(os.getenv("BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
for name, value in os.getenv("HEADERS"):gmatch("([^\n:]+): *([^\n]*)") do
  wrk.headers[name] = value
end

function done(summary, latency)
  local errors = summary.errors
  local ms = function(percent)
    return latency:percentile(percent) / 1000
  end
  local line = '\nFIGURES {"requests": %d, "seconds": %f, "p50": %f, "p95": %f, "p99": %f, "errors": %d}\n'
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(line:format(summary.requests, summary.duration / 1e6, ms(50), ms(95), ms(99), failed))
end
