-- The outermost filter but for CORS and gRPC-Web: before all others for a request, after them for its
-- response. What comes as gRPC-Web is gRPC here.

-- What Envoy adds by itself before this filter: x-forwarded-for, x-request-id and the like.
local ADDED_BYTES = 1024

-- Content encodings that the gateway decodes.
local UNPACKED = {[""] = true, identity = true, gzip = true, ["x-gzip"] = true, deflate = true}

local function is_grpc(headers)
  return string.sub(headers:get("content-type") or "", 1, 16) == "application/grpc"
end

-- Whether the client reads gRPC-Web as text. Envoy's filter writes no base64 of an empty body, and
-- waits for more.
local function reads_base64(headers)
  return string.find(headers:get("accept") or "", "application/grpc-web-text", 1, true) ~= nil
end

local function bytes_of(headers)
  local bytes = 0
  for name, value in pairs(headers) do bytes = bytes + #name + #value + 4 end
  return bytes
end

-- Whether the host, with or without a port, is this machine's loopback.
local function is_local_host(host)
  local name = string.lower(string.match(host or "", "^(.-):?%d*$") or "")
  return name == "localhost" or name == "[::1]" or string.match(name, "^127%.%d+%.%d+%.%d+$") ~= nil
end

-- Whether a page of this very origin sent it. Browsers set both headers; pages cannot.
local function is_same_origin(headers)
  local site = headers:get("sec-fetch-site")
  if site ~= nil then return site == "same-origin" end
  local origin = headers:get("origin")
  if origin == nil then return false end
  local scheme = headers:get("x-forwarded-proto") or headers:get(":scheme") or ""
  return string.lower(origin) == string.lower(scheme .. "://" .. (headers:get(":authority") or ""))
end

-- Whether the body has a type that forms cannot send, and scripts of other origins only after a
-- preflight.
local function has_guarded_type(headers)
  local kind = string.lower(headers:get("content-type") or "")
  return string.match(kind, "^application/json%f[;%s%z]") ~= nil or
    string.sub(kind, 1, 16) == "application/grpc"
end

local function has_no_body(headers)
  return headers:get("content-type") == nil and (headers:get("content-length") or "0") == "0" and
    headers:get("transfer-encoding") == nil
end

local function is_read(headers)
  local method = headers:get(":method")
  return method == "GET" or method == "HEAD" or method == "OPTIONS"
end

local function path_of(headers)
  return string.match(headers:get(":path") or "", "^[^?]*")
end

local function is_upload(headers)
  return headers:get(":method") == "POST" and path_of(headers) == FILES_PATH
end

-- Whether it counts as sent by the console of this mesh, so that a session's cookie is valid for it.
local function is_of_own_page(headers)
  return is_same_origin(headers) and
    (is_read(headers) or has_guarded_type(headers) or has_no_body(headers) or is_upload(headers))
end

-- Whether a page of another origin sent it, in a way for which its browser requests no permission.
local function is_forged(headers)
  local origin = headers:get("origin")
  if origin == nil or is_read(headers) or has_guarded_type(headers) then return false end
  if is_same_origin(headers) or ALLOWED_ORIGINS[origin] then return false end
  return not (LOCAL_ORIGINS and is_local_host(string.match(origin, "^https?://(.*)$")))
end

-- Control checks the names in these bodies, which the transcoder passes over where it does not know
-- them.
local function has_checked_body(headers, grpc)
  return not grpc and string.sub(headers:get(":path") or "", 1, #ADMIN_PREFIX) == ADMIN_PREFIX
end

-- Whether it administers, or uses the page, under a host name that may be anybody's: a page can have
-- its own name resolved to the loopback, and is then of the same origin as this port.
local function is_rebound(headers)
  local path = headers:get(":path") or ""
  local is_private = string.find(path, "/v2/admin", 1, true) or
    string.find(path, "headrace.admin.", 1, true) or string.sub(path, 1, 3) == "/ui"
  return ONLY_LOCAL_HOSTS and is_private and not is_local_host(headers:get(":authority"))
end

-- Whether the transcoder could not read the time of a long poll, which its error says in names that
-- are no caller's. What is percent-encoded it decodes.
local function has_unreadable_wait(headers)
  local query = string.match(headers:get(":path") or "", "^/v2/requests/[^?]*%?(.*)$")
  for value in string.gmatch("&" .. (query or ""), "&wait=([^&]*)") do
    local whole, part = string.match(value, "^-?(%d+)%.?(%d*)s$")
    local is_time = whole ~= nil and #whole < 10 and #part < 10
    if not is_time and not string.find(value, "%", 1, true) then return true end
  end
  return false
end

-- Returns the status and message if the request must be rejected, else nil. The messages of 404,
-- 413 and 431 are in local_reply_config.
local function refusal(headers)
  if bytes_of(headers) > MAX_HEADER_BYTES + ADDED_BYTES then return "431", "" end
  if is_rebound(headers) then
    return "403", "without keys this mesh is administered, and its page used, at localhost or 127.0.0.1 only, not at " ..
      "another name; see --auth keys and --trusted-proxies"
  end
  if is_grpc(headers) then return nil end
  if is_forged(headers) then
    return "403", "pages of this origin may not call the mesh; see --allow-origin"
  end
  -- The body of a CONNECT never ends, and the buffer filter would wait for its end.
  if headers:get(":method") == "CONNECT" then return "404", "" end
  if has_unreadable_wait(headers) then
    return "400", "wait is a number of seconds from 0 to 60, for example wait=30 or wait=2.5s"
  end
  local timeout = headers:get("grpc-timeout")
  if timeout ~= nil and (#timeout > 9 or not string.match(timeout, "^%d+[HMSmun]$")) then
    return "400", "the header grpc-timeout is up to eight digits and one of the letters " ..
      "H, M, S, m, u and n, for example 30S"
  end
  local encoding = headers:get("content-encoding")
  if is_upload(headers) and encoding ~= nil and string.lower(encoding) ~= "identity" then
    return "415", "send the form of an upload uncompressed"
  end
  if has_checked_body(headers, false) then
    if encoding ~= nil and encoding ~= "" and string.lower(encoding) ~= "identity" then
      return "415", "send the body of a call of the administration uncompressed"
    end
    local bytes = tonumber(headers:get("content-length") or "0") or 0
    if bytes > MAX_ADMIN_BODY_BYTES then return "413", "" end
  end
  if encoding ~= nil and not UNPACKED[string.lower(encoding)] then
    return "415", "this Content-Encoding is not supported; send the body uncompressed, or as gzip or deflate"
  end
  return nil
end

-- Every header becomes metadata of the gateway's call. x-hr-* is internal and must not come from a
-- client; Envoy would take retries and timeouts from x-envoy-* of a client on a private network. On
-- requests other than gRPC, gRPC's own headers have no meaning, and gRPC rejects malformed ones.
local function must_be_removed(name, grpc)
  if string.sub(name, 1, 5) == "x-hr-" or string.sub(name, 1, 8) == "x-envoy-" then return true end
  if grpc or name == "grpc-timeout" then return false end
  return string.sub(name, 1, 5) == "grpc-" or string.sub(name, -4) == "-bin"
end

local function shape_of(headers, grpc)
  local path = path_of(headers)
  if grpc then return "grpc" end
  if path == COHERE_PATH then return "cohere" end
  if TEI_PATHS[path] then return "tei" end
  if path == ANTHROPIC_PREFIX or headers:get(ANTHROPIC_HEADER) ~= nil or
    string.sub(path, 1, #ANTHROPIC_PREFIX + 1) == ANTHROPIC_PREFIX .. "/" then
    return "anthropic"
  end
  if string.sub(path, 1, 4) == "/v2/" then return "status" end
  return "openai"
end

-- Waits for the body and adds it as a header. Returns the status and message if it is too large.
local function show_body(h)
  local body = h:body()
  local bytes = body ~= nil and body:length() or 0
  if bytes > MAX_ADMIN_BODY_BYTES then return "413", "" end
  if bytes > 0 then h:headers():add("x-hr-body", h:base64Escape(body:getBytes(0, bytes))) end
  return nil
end

-- Seconds without a unit: the transcoder reads durations with an s behind them alone.
local function complete_wait(headers)
  local path, query = string.match(headers:get(":path") or "", "^(/v2/requests/[^?]*)%?(.*)$")
  if path == nil then return end
  local changed, count = string.gsub("&" .. query, "(&wait=%d+%.?%d*)%f[&%z]", "%1s")
  if count > 0 then headers:replace(":path", path .. "?" .. string.sub(changed, 2)) end
end

function envoy_on_request(h)
  local headers = h:headers()
  local grpc = is_grpc(headers)
  if not grpc then complete_wait(headers) end
  local drop = {}
  for name in pairs(headers) do
    if must_be_removed(name, grpc) then drop[#drop + 1] = name end
  end
  local status, message = refusal(headers)
  for _, name in ipairs(drop) do headers:remove(name) end
  -- A session's cookie counts only with it. The route adds the client's address and the proof that
  -- these headers are Envoy's.
  if is_of_own_page(headers) then
    headers:add("x-hr-same-origin", "1")
  end
  -- By which control refuses a file that is too large before any of it has come.
  if is_upload(headers) and headers:get("content-length") ~= nil then
    headers:add("x-hr-body-bytes", headers:get("content-length"))
  end
  local ours = h:streamInfo():dynamicMetadata()
  ours:set("headrace", "request_id", headers:get("x-request-id") or "")
  ours:set("headrace", "shape", shape_of(headers, grpc))
  if grpc and not reads_base64(headers) then ours:set("headrace", "binary", "true") end
  -- HEAD is served as GET without its body, except for streams.
  if headers:get(":method") == "HEAD" and not string.find(headers:get(":path"), ":stream", 1, true) then
    headers:replace(":method", "GET")
    ours:set("headrace", "only_head", "true")
  end
  if status == nil and has_checked_body(headers, grpc) then status, message = show_body(h) end
  if status ~= nil then h:respond({[":status"] = status}, message) end
end

-- As gRPC writes messages into headers.
local function escaped(text)
  return (string.gsub(text, "[^ -$&-~]", function(c) return string.format("%%%02X", string.byte(c)) end))
end

-- Envoy writes its own errors as a gRPC status only if the request came as gRPC itself. For gRPC-Web
-- its filter would make one of the HTTP status, by which 431 is UNKNOWN and 504 UNAVAILABLE.
local function make_grpc(h)
  local body = h:body(true)
  -- Objects from before the body has come are not valid behind it.
  local headers = h:headers()
  headers:replace("grpc-message", escaped(body:getBytes(0, body:length())))
  headers:replace(":status", "200")
  headers:replace("content-type", "application/grpc")
  body:setBytes("")
end

-- The gateway's HTTP error responses have the gRPC status OK and their HTTP status in x-hr-status.
function envoy_on_response(h)
  local headers = h:headers()
  local ours = h:streamInfo():dynamicMetadata():get("headrace") or {}
  -- The gateway's request id, which /v2/requests accepts; else Envoy's.
  if headers:get("x-request-id") == nil then
    headers:add("x-request-id", ours["request_id"] or "")
  end
  if is_grpc(headers) then return end
  if ours["binary"] ~= nil and headers:get("grpc-status") ~= nil then return make_grpc(h) end
  -- By which Anthropic's clients know a request.
  if ours["shape"] == "anthropic" then headers:replace("request-id", headers:get("x-request-id")) end
  local status = headers:get("x-hr-status")
  if status ~= nil then
    headers:replace(":status", status)
    headers:remove("x-hr-status")
  end
  -- A body that breaks off is then known from a whole one: the connection is closed behind it.
  local bytes = headers:get("x-hr-body-bytes")
  if bytes ~= nil then
    headers:replace("content-length", bytes)
    headers:remove("x-hr-body-bytes")
    h:streamInfo():drainConnectionUponCompletion()
  end
  headers:remove("grpc-status")
  headers:remove("grpc-message")
  headers:remove("grpc-accept-encoding")
  headers:remove("grpc-status-details-bin")
  if ours["only_head"] ~= nil then h:body(true):setBytes("") end
end
