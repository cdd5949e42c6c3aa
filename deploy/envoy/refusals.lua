-- The innermost filter: rewrites errors of gRPC itself, which come before or without a gateway's
-- handler, to the error format of the path. Errors from a handler of the native API have details,
-- which the transcoder prints.

local STATUSES = {
  ["1"] = {499, "cancelled"}, ["3"] = {400, "invalid_request"}, ["4"] = {504, "deadline_exceeded"},
  ["5"] = {404, "not_found"}, ["6"] = {409, "already_exists"}, ["7"] = {403, "permission_denied"},
  ["8"] = {429, "resource_exhausted"}, ["9"] = {400, "failed_precondition"},
  ["12"] = {501, "unsupported"}, ["14"] = {503, "gateway_unavailable"},
  ["16"] = {401, "invalid_api_key"},
}
local ANTHROPIC = {
  [401] = "authentication_error", [403] = "permission_error", [404] = "not_found_error",
  [409] = "conflict_error", [429] = "rate_limit_error", [503] = "overloaded_error",
  [504] = "timeout_error",
}
local INTERNAL = {500, "internal"}

local function unescaped(text)
  return (string.gsub(text, "%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function quoted(text)
  local escaped = string.gsub(text, '[%c"\\]', function(c)
    return string.format("\\u%04x", string.byte(c))
  end)
  return '"' .. escaped .. '"'
end

local function body_of(shape, refused, status, code, message, request_id)
  if shape == "status" then
    return '{"code":' .. refused .. ',"message":' .. quoted(message) ..
      ',"details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"' ..
      string.upper(code) .. '","domain":"headrace.dev"}]}'
  end
  if shape == "cohere" then return '{"message":' .. quoted(message) .. "}" end
  if shape == "tei" then
    local kind = status < 500 and status ~= 429 and "Validation" or
      (status == 429 or status == 503) and "Overloaded" or "Backend"
    return '{"error":' .. quoted(message) .. ',"error_type":"' .. kind .. '"}'
  end
  if shape == "anthropic" then
    local kind = ANTHROPIC[status] or status >= 499 and "api_error" or "invalid_request_error"
    return '{"type":"error","error":{"type":"' .. kind .. '","message":' .. quoted(message) ..
      '},"request_id":' .. quoted(request_id) .. "}"
  end
  local kind = status >= 500 and "server_error" or "invalid_request_error"
  return '{"error":{"message":' .. quoted(message) .. ',"type":"' .. kind ..
    '","param":null,"code":"' .. code .. '"}}'
end

function envoy_on_response(h)
  local headers = h:headers()
  local refused = headers:get("grpc-status") or "0"
  local ours = h:streamInfo():dynamicMetadata():get("headrace") or {}
  local shape = ours["shape"] or "grpc"
  if refused == "0" or shape == "grpc" then return end
  if shape == "status" and headers:get("grpc-status-details-bin") ~= nil then return end
  local status, code = unpack(STATUSES[refused] or INTERNAL)
  local message = unescaped(headers:get("grpc-message") or "")
  local request_id = headers:get("x-request-id") or ours["request_id"] or ""
  local body = body_of(shape, refused, status, code, message, request_id)
  if shape == "anthropic" and status == 503 then status = 529 end
  h:body(true):setBytes(body)
  headers:replace(":status", tostring(status))
  headers:replace("content-type", "application/json")
  headers:replace("content-length", tostring(#body))
  for _, name in ipairs({"grpc-status", "grpc-message", "grpc-status-details-bin"}) do
    headers:remove(name)
  end
end
