// Package admin is Larder over HTTP for its operators: the admin listener with the
// status page, /metrics, /healthz and /readyz, and /api/v1 for the commands. The
// admin listener changes nothing. /api/v1 does, and is served on a socket that only
// the operator can open. proxy/PROTOCOL.md documents both.
//
// [Admin.Run] samples what the daemon does into the history. While status pages are
// open it also reads the activity, the evictions and the images. It puts each as an
// event on the board, which holds the latest event of each kind. Each open page is one
// request for /api/v1/events; it writes what is new on the board at its own pace.
//
// The locks of the history, the board and the watchers are never held together, and
// nothing else is locked under them.
package admin
