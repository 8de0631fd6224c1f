package frontend

import "net/http"

// Error is an error answer, before it has the form of a protocol.
type Error struct {
	Status        int
	Code, Message string
}

// Throttled returns the answer of AWS to a client that sends too many requests of a
// kind.
func Throttled(op Op) Error {
	switch op {
	case API:
		return Error{http.StatusBadRequest, "ThrottlingException", "Rate exceeded"}
	case STS:
		return Error{http.StatusBadRequest, "Throttling", "Rate exceeded"}
	case Storage:
		return Error{http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate."}
	default:
		return Error{http.StatusTooManyRequests, "TOOMANYREQUESTS", "Rate exceeded"}
	}
}
