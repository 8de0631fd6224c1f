package patience

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// Question is a request that may be put twice: it changes nothing where it goes.
type Question struct {
	// Timeout bounds the time to the answer.
	Timeout time.Duration
	// Slow says that this answer takes far longer than others of its server. The
	// question is put once, and its time is not the usual one.
	Slow bool
	// Again reports whether the question may be put again, such as whether a limit on
	// requests allows it. It does not wait. Nil means that it may.
	Again func() bool
	// Send puts the question. It returns when its answer has come, as far as the caller
	// needs it at once: see [Await]. With fresh it uses a new connection. It is called
	// twice at the same time at most, and ends with its context, as the answer's body
	// does.
	Send func(ctx context.Context, fresh bool) (*http.Response, error)
	// Repeated is called when a question that was put again is over; used says that
	// the second answer was first. Nil means that nobody counts.
	Repeated func(used bool)
}

// ask puts a question, and again if the answer takes too long.
func (p *Place) ask(ctx context.Context, q Question) (*http.Response, error) {
	if q.Slow {
		return q.Send(ctx, false)
	}
	var chosen atomic.Bool // by the first answer
	firstCtx, cancelFirst := context.WithCancel(ctx)
	secondCtx, cancelSecond := context.WithCancel(ctx)
	second := make(chan *http.Response, 1)
	timer := time.AfterFunc(p.patience(), func() {
		defer close(second)
		if resp := p.askAgain(secondCtx, q, &chosen); resp != nil { //nolint:bodyclose // the reader of second closes it
			cancelFirst()
			second <- resp
		}
	})
	began := time.Now()
	resp, err := q.Send(firstCtx, false)
	if err == nil && chosen.CompareAndSwap(false, true) {
		p.observe(time.Since(began))
		cancelSecond()
		if !timer.Stop() {
			<-second // it has nothing, and has ended
		}
		resp.Body = &body{resp.Body, cancelFirst}
		return resp, nil
	}
	if err == nil {
		resp.Body.Close()
	}
	var other *http.Response
	if !timer.Stop() {
		other = <-second // even if this one failed, the second may do better
	}
	cancelFirst()
	if other == nil {
		cancelSecond()
		return nil, err
	}
	other.Body = &body{other.Body, cancelSecond}
	return other, nil
}

// askAgain puts a question for the second time. It returns nil if the answer does not
// count: it is an error, or came second, or the question was not put.
func (p *Place) askAgain(ctx context.Context, q Question, chosen *atomic.Bool) *http.Response {
	if p.second.Acquire(ctx, 1) != nil {
		return nil
	}
	defer p.second.Release(1)
	if q.Again != nil && !q.Again() {
		return nil
	}
	began := time.Now()
	resp, err := q.Send(ctx, true)
	used := err == nil && chosen.CompareAndSwap(false, true)
	if q.Repeated != nil {
		q.Repeated(used)
	}
	if used {
		p.observe(time.Since(began))
		return resp
	}
	if err == nil {
		resp.Body.Close()
	}
	return nil
}

// Await reads up to most bytes of an answer's body, so that a body that stops is an
// answer that has not come. The body can be read again, and more than that as before.
func Await(resp *http.Response, most int64) error {
	begin, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil {
		resp.Body.Close()
		return err
	}
	if int64(len(begin)) < most {
		resp.Body.Close() // that was all of it
		resp.Body = io.NopCloser(bytes.NewReader(begin))
		return nil
	}
	resp.Body = &rest{io.MultiReader(bytes.NewReader(begin), resp.Body), resp.Body}
	return nil
}

// rest is a body whose beginning was read.
type rest struct {
	io.Reader
	io.Closer
}

// body is an answer's body that calls done when it is closed.
type body struct {
	io.ReadCloser
	done func()
}

func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.done()
	return err
}
