// Package patience decides how long an answer is waited for: when a question is put
// a second time, and which servers are not asked at all for a while.
//
// An answer may fail to begin although the server is well: a firewall has forgotten
// the connection, or the request is one of the slow few of a large storage (AWS,
// "Performance design patterns for Amazon S3": retry slow requests). The same question
// on a new connection is then answered at once. So a question is put again
// after three times what its server usually takes, but not before 2 s, and the first answer
// counts.
//
// A server that accepts a connection and says nothing costs each question its whole
// timeout. Once one was asked in vain, the others fail at once, and one question at a
// time finds out whether the server answers again.
//
// [Place] has one lock, and its breaker another. Neither is held while anything is
// sent.
package patience
