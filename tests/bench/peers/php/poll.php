<?php
// What the fallback does for a poll, as an application would have it in PHP: the same statement over a connection that is kept.
// nginx passes the settings, so that this is a script as it stands.
$database = pg_pconnect($_SERVER['DATABASE']);
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
[, , $channel] = explode('/', rawurldecode($path));
$after = (int) ($_SERVER['HTTP_LAST_EVENT_ID'] ?? $_GET['last_event_id'] ?? 0);
$names = '{"' . addcslashes($channel, '"\\') . '"}';
$read = 'select * from everpoll.read($1, 1000, 1048576, $1, null, $2)';
$rows = pg_fetch_all(pg_query_params($database, $read, [$after, $names]));
$events = [];
foreach (array_filter($rows, fn ($row) => $row['id'] !== null) as $row) {
    $data = ['type' => $row['type'], 'data' => json_decode($row['data'])];
    $events[] = ['id' => (int) $row['id'], 'channel_id' => $row['channel'], 'ts' => $row['ts'], 'data' => $data];
}
header('Content-Type: application/json; charset=utf-8');
header('Cache-Control: private, no-cache, no-store, must-revalidate, max-age=0, no-transform');
header('x-ps-reconnect-in: ' . random_int(5, 8));
header('x-ps-cursor: ' . ($events ? end($events)['id'] : $rows[0]['newest']));
$body = json_encode($events);
header('Content-Length: ' . strlen($body));
echo $body;
