package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestCommandsThatRunAreEndedByADrain(t *testing.T) {
	ctx, drain := context.WithCancel(t.Context())
	ended := make(chan struct{})
	h := until(ctx, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		drain()
		<-r.Context().Done()
		close(ended)
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/api/v1/scrub", http.NoBody))
	<-ended
}
