# Varnish as it comes.
vcl 4.1;
backend default {
    .host = "@ORIGIN_HOST@";
    .port = "@ORIGIN_PORT@";
    .first_byte_timeout = @LIMIT@s;
    .between_bytes_timeout = @LIMIT@s;
}
