-- gRPC refuses a message above the limit of a service before any code there sees it, and gives no reason: this adds it.
{% for refusal in refusals if refusal.reason == "REQUEST_TOO_LARGE" %}
function envoy_on_response(response)
  local headers = response:headers()
  local said = headers:get("grpc-message")
  if headers:get("grpc-status") == "8" and said and said:find("message larger than max", 1, true) then
    headers:replace("grpc-status", "{{ refusal.grpc_status }}")
    headers:replace("grpc-message", "{{ refusal.grpc_message }}")
    headers:replace("grpc-status-details-bin", "{{ refusal.grpc_details }}")
  end
end
{% endfor %}
