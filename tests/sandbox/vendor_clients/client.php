<?php
// A client written from the vendor's pages in PHP alone: php client.php URL SPOIL
// SPOIL says in which part one byte is changed after signing: nothing, body, sign, ts or secret. It prints the answer.

[, $url, $spoil] = $argv;
$secret = 'sandbox-access-secret';
$headers = [
    'accessKey' => 'sandbox-access-key',
    'action' => 'mt',
    'bizType' => '2',
    'ts' => (string) (int) (microtime(true) * 1000),
];
// json_encode writes "\u60a8" and "\/" by itself: other bytes than Python's, and signed like any.
$body = json_encode([
    'appkey' => 'sandbox-appkey',
    'messaging_product' => 'whatsapp',
    'recipient_type' => 'individual',
    'to' => '9995550100',
    'language_code' => 'zh_CN',
    'content' => '您的验证码是 482913',
    'cus_message_id' => 'by/hand/1',
]);
if ($spoil === 'secret') {
    $secret = 'sandbox-access-secreT';
}
ksort($headers);
$pairs = [];
foreach ($headers as $name => $value) {
    $pairs[] = $name . '=' . $value;
}
$sign = md5(implode('&', $pairs) . '&body=' . $body . '&accessSecret=' . $secret);
if ($spoil === 'body') {
    $body = str_replace('482913', '482914', $body);
}
if ($spoil === 'sign') {
    $sign = substr($sign, 0, -1) . (substr($sign, -1) === '0' ? '1' : '0');
}
if ($spoil === 'ts') {
    $headers['ts'] = (string) ((int) $headers['ts'] + 1);
}
$lines = "Content-Type: application/json\r\nsign: $sign\r\n";
foreach ($headers as $name => $value) {
    $lines .= "$name: $value\r\n";
}
$options = ['method' => 'POST', 'header' => $lines, 'content' => $body, 'timeout' => 20, 'follow_location' => 0];
echo file_get_contents($url . '/api/wa/otp', false, stream_context_create(['http' => $options]));
