-- Refuses a JSON body with a field that the contract does not have: the transcoder would drop it without a word.
-- Only names are looked at here; what is not JSON, or has a wrong type, the transcoder refuses after this.

-- Message -> field, under both of its names -> the message it holds, or "" for a value without known fields.
local MESSAGES = {
{% for message, fields in messages.items() %}
  ["{{ message }}"] = { {%- for name, held in fields.items() %} ["{{ name }}"] = "{{ held }}",{% endfor %} },
{% endfor %}
}

-- HTTP method, pattern of the path, message of the body.
local BODIES = {
{% for method in methods if method.body %}
  {"{{ method.verb }}", "{{ method.lua_pattern }}", "{{ method.body }}"},
{% endfor %}
}

-- Far above any request of ours: a body made to be slow to read is refused before it is read.
local MAX_DEPTH, MAX_VALUES = 32, 10000
local QUOTE, BACKSLASH = 34, 92
local values_seen
local check_value

local function refuse(why) error({why = why}) end

-- The position of the quote that ends the string that begins at `at`.
local function string_end(text, at)
  local found = text:find('[\\"]', at + 1)
  while found and text:byte(found) == BACKSLASH do
    found = text:find('[\\"]', found + 2)
  end
  return found
end

-- Each function takes the position where its part begins and returns the one after it; nil: this is not JSON.
local function check_object(text, at, message, depth)
  local fields = MESSAGES[message]
  at = text:find("%S", at + 1)
  while at and text:byte(at) == QUOTE do
    local key_end = string_end(text, at)
    if not key_end then return nil end
    local key = text:sub(at + 1, key_end - 1)
    if fields and not fields[key] then refuse('There is no field "' .. key:sub(1, 100) .. '".') end
    local colon = text:match("^%s*:()", key_end + 1)
    at = colon and check_value(text, colon, fields and fields[key] or "", depth)
    at = at and text:find("%S", at)
    if not at or text:sub(at, at) ~= "," then break end
    at = text:find("%S", at + 1)
  end
  return at and text:match("^}()", at)
end

local function check_array(text, at, message, depth)
  at = text:find("%S", at + 1)
  if at and text:sub(at, at) == "]" then return at + 1 end
  while at do
    at = check_value(text, at, message, depth)
    at = at and text:find("%S", at)
    if not at or text:sub(at, at) ~= "," then break end
    at = at + 1
  end
  return at and text:match("^%]()", at)
end

check_value = function(text, at, message, depth)
  values_seen = values_seen + 1
  if depth > MAX_DEPTH or values_seen > MAX_VALUES then refuse("It holds too many values.") end
  at = text:find("%S", at)
  if not at then return nil end
  local first = text:sub(at, at)
  if first == "{" then return check_object(text, at, message, depth + 1) end
  if first == "[" then return check_array(text, at, message, depth + 1) end
  if first == '"' then
    local last = string_end(text, at)
    return last and last + 1
  end
  return text:match("^[%w+.-]+()", at)
end

local function body_message(headers)
  local path = headers:get(":path"):match("^[^?]*")
  for _, body in ipairs(BODIES) do
    if headers:get(":method") == body[1] and path:match(body[2]) then return body[3] end
  end
end

function envoy_on_request(request)
  local message = body_message(request:headers())
  local body = message and request:body()
  if not body or body:length() == 0 then return end
  values_seen = 0
  local fine, fault = pcall(check_value, body:getBytes(0, body:length()), 1, message, 0)
  if fine then return end
  if type(fault) ~= "table" then error(fault) end
  request:respond({[":status"] = "400"}, fault.why)
end
