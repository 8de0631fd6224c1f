package answer_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/admin/answer"
)

func TestErrorHasTheStatusOfItsKind(t *testing.T) {
	for want, err := range map[int]error{
		http.StatusBadRequest:          answer.ErrRequest,
		http.StatusNotFound:            fs.ErrNotExist,
		http.StatusConflict:            cache.ErrPinned,
		http.StatusUnprocessableEntity: cache.ErrMismatch,
		http.StatusInsufficientStorage: unix.ENOSPC,
		http.StatusServiceUnavailable:  cache.ErrClosed,
		http.StatusInternalServerError: errors.New(`a "quoted" reason`),
	} {
		w := httptest.NewRecorder()
		err = fmt.Errorf("do it: %w", err)
		answer.Refuse(w, err)
		if w.Code != want || w.Header().Get("Content-Type") != "application/json" || w.Body.String() != fmt.Sprintf("{\"error\":%q}\n", err) {
			t.Errorf("%v: %d %s", err, w.Code, w.Body)
		}
	}
}

func TestBodyIsReadUpToItsLimit(t *testing.T) {
	read := func(body string) (n int, err error) {
		err = answer.Read(httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body)), 4, &n)
		return n, err
	}
	if n, err := read("1234"); n != 1234 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := read("12345"); !errors.Is(err, answer.ErrRequest) || !errors.Is(err, answer.ErrTooLarge) {
		t.Errorf("a byte more: %v", err)
	}
	for _, body := range []string{"", "{", "null x"} {
		if _, err := read(body); !errors.Is(err, answer.ErrRequest) {
			t.Errorf("%q: %v", body, err)
		}
	}
}

func TestLinesReachTheClientAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := httptest.NewRecorder()
		lines := answer.NewLines(w)
		sent := 0
		for range 1000 { // for ten seconds
			if lines.Due() {
				lines.Send(map[string]int{"done": sent})
				sent++
			}
			<-time.After(10 * time.Millisecond)
		}
		if sent != 50 || !w.Flushed || strings.Count(w.Body.String(), "\n") != sent || w.Header().Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("%d lines, flushed %t: %s", sent, w.Flushed, w.Body)
		}
	})
}
