# Varnish that keeps everything for five seconds, whatever the server says.
vcl 4.1;
backend default {
    .host = "@ORIGIN_HOST@";
    .port = "@ORIGIN_PORT@";
    .first_byte_timeout = @LIMIT@s;
    .between_bytes_timeout = @LIMIT@s;
}
sub vcl_backend_response {
    unset beresp.http.Cache-Control;
    set beresp.ttl = 5s;
    set beresp.uncacheable = false;
    set beresp.do_stream = false;
}
