-- HAProxy asks labgate about each request: the action `lua.labgate` of `labgate front haproxy`. Needs HAProxy 2.6 or newer.
--
--   http-request lua.labgate ADDRESS PATH NAMES     NAMES are the headers that say who it is, joined by commas
--
-- It sends the request's headers to http://ADDRESS/PATH, without its body. If labgate says 200, it sets NAMES as the answer has them and
-- the variable txn.labgate_passed. Whatever else labgate says goes to the browser whole, with all its cookies. If there is no answer it does
-- nothing, and neither does HAProxy's engine when a script fails: the configuration must refuse whatever has not passed.

-- How long an answer may take, in milliseconds.
local PATIENCE = {{ setup.patience }}000

-- What belongs to one connection or one body.
local HOP = {}
for name in string.gmatch("connection content-length expect http2-settings keep-alive proxy-connection te trailer transfer-encoding upgrade", "[^ ]+") do
    HOP[name] = true
end

local function list(values)
    local copy = {}
    for _, value in pairs(values) do
        copy[#copy + 1] = value
    end
    return copy
end

local function pass(txn, answer, names)
    for name in string.gmatch(names, "[^,]+") do
        local values = answer.headers[name]
        -- An empty one says that there is nothing to say, and leaves no room for a stranger's.
        txn.http:req_set_header(name, values and values[0] or "")
    end
    txn:set_var("txn.labgate_passed", true)
end

local function refuse(txn, answer)
    local reply = txn:reply{ status = answer.status, reason = answer.reason }
    for name, values in pairs(answer.headers) do
        if not HOP[name] then
            for _, value in ipairs(list(values)) do
                reply:add_header(name, value)
            end
        end
    end
    if txn.sf:method() ~= "HEAD" then
        reply:set_body(answer.body or "")
    end
    txn:done(reply)
end

core.register_action("labgate", { "http-req" }, function(txn, address, path, names)
    local headers = {}
    for name, values in pairs(txn.http:req_get_headers()) do
        if not HOP[name] then
            headers[name] = list(values)
        end
    end
    local answer = core.httpclient():get{ url = "http://" .. address .. path, headers = headers, timeout = PATIENCE }
    if answer.status == 200 then
        pass(txn, answer, names)
    elseif answer.status and answer.status >= 300 then
        refuse(txn, answer)
    end
end, 3)
