package ecrtest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestBlobIsRedirectedToAnotherHostName(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	u, err := url.Parse(c.signedURL(c.addBlob(ecrtest.Bytes([]byte("hello")))))
	if err != nil {
		t.Fatal(err)
	}
	if u.Hostname() != "localhost" || !strings.HasPrefix(server.Endpoint, "http://127.0.0.1:") {
		t.Errorf("the redirect from %s to %s does not change the host name", server.Endpoint, u)
	}
	for _, name := range []string{"Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature"} {
		if !u.Query().Has("X-Amz-" + name) {
			t.Errorf("%s lacks X-Amz-%s", u, name)
		}
	}
	a := c.get(u.String())
	wantStatus(t, a, http.StatusOK)
	wantBody(t, a, "hello")
	if a.ProtoMajor != 1 {
		t.Errorf("storage speaks %s", a.Proto)
	}
}

func TestSignedURLIsValidForOneObjectMethodAndHost(t *testing.T) {
	_, c := start(t, ecrtest.Options{})
	signed := c.signedURL(c.addBlob(ecrtest.Bytes([]byte("one"))))
	other := c.signedURL(c.addBlob(ecrtest.Bytes([]byte("two"))))
	one, two := mustParse(t, signed), mustParse(t, other)
	swapped := *one
	swapped.Path = two.Path
	longer := *one
	longer.RawQuery = strings.Replace(one.RawQuery, "X-Amz-Expires=3600", "X-Amz-Expires=36000", 1)
	bare := *one
	bare.RawQuery = ""
	for name, test := range map[string]struct {
		req  *http.Request
		code string
	}{
		"another blob": {c.request(http.MethodGet, swapped.String()), "SignatureDoesNotMatch"},
		"longer":       {c.request(http.MethodGet, longer.String()), "SignatureDoesNotMatch"},
		"not signed":   {c.request(http.MethodGet, bare.String()), "AccessDenied"},
		"PUT":          {c.request(http.MethodPut, signed), "SignatureDoesNotMatch"},
		"HEAD":         {c.request(http.MethodHead, signed), ""},
		"another name": {c.request(http.MethodGet, strings.Replace(signed, "localhost", "127.0.0.1", 1)), "SignatureDoesNotMatch"},
	} {
		t.Run(name, func(t *testing.T) {
			a := c.do(test.req)
			wantStatus(t, a, http.StatusForbidden)
			wantHeader(t, a, "Content-Type", "application/xml")
			if test.code != "" && !strings.Contains(a.body, "<Error><Code>"+test.code+"</Code>") {
				t.Errorf("got %s, want %s", a.body, test.code)
			}
		})
	}
}

func mustParse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestStorageRefusesAuthorization(t *testing.T) {
	_, c := start(t, ecrtest.Options{})
	signed := c.signedURL(c.addBlob(ecrtest.Bytes([]byte("hello"))))
	a := c.get(signed, "Authorization", "Basic QVdTOng=")
	wantStatus(t, a, http.StatusBadRequest)
	if !strings.Contains(a.body, "<Code>InvalidArgument</Code><Message>Only one auth mechanism allowed") {
		t.Errorf("got %s", a.body)
	}
}

func TestSignedURLExpires(t *testing.T) {
	clock := ecrtest.NewClock()
	server, c := start(t, ecrtest.Options{Now: clock.Now, URLTTL: time.Minute})
	path := c.addBlob(ecrtest.Bytes([]byte("hello")))
	signed := c.signedURL(path)
	clock.Advance(time.Minute - time.Second)
	wantStatus(t, c.get(signed), http.StatusOK)
	clock.Advance(time.Second)
	wantURLExpired(t, c, signed)

	signed = c.signedURL(path)
	wantStatus(t, c.get(signed), http.StatusOK)
	server.ExpireURLs()
	wantURLExpired(t, c, signed)
	wantStatus(t, c.get(c.signedURL(path)), http.StatusOK)
}

func wantURLExpired(t *testing.T, c *client, signed string) {
	t.Helper()
	a := c.get(signed)
	wantStatus(t, a, http.StatusForbidden)
	want := "<Error><Code>AccessDenied</Code><Message>Request has expired</Message>"
	if !strings.Contains(a.body, want) {
		t.Errorf("got %s, want %s", a.body, want)
	}
}

func TestStorageHonoursASingleRange(t *testing.T) {
	_, c := start(t, ecrtest.Options{})
	content := ecrtest.Random(5, 2000)
	whole := string(readAll(t, content))
	signed := c.signedURL(c.addBlob(content))
	etag := c.get(signed).Header.Get("Etag")
	for _, test := range []struct {
		header []string
		status int
		crange string
		want   string
	}{
		{nil, 200, "", whole},
		{[]string{"Range", "bytes=500-1499"}, 206, "bytes 500-1499/2000", whole[500:1500]},
		{[]string{"Range", "bytes=500-"}, 206, "bytes 500-1999/2000", whole[500:]},
		{[]string{"Range", "bytes=-500"}, 206, "bytes 1500-1999/2000", whole[1500:]},
		{[]string{"Range", "bytes=-5000"}, 206, "bytes 0-1999/2000", whole},
		{[]string{"Range", "bytes=1999-5000"}, 206, "bytes 1999-1999/2000", whole[1999:]},
		{[]string{"Range", "bytes=2000-"}, 416, "bytes */2000", ""},
		{[]string{"Range", "bytes=-0"}, 416, "bytes */2000", ""},
		{[]string{"Range", "bytes=500-0"}, 200, "", whole},
		{[]string{"Range", "bytes=0-1,3-4"}, 200, "", whole},
		{[]string{"Range", "lines=0-1"}, 200, "", whole},
		{[]string{"Range", "bytes=0-0", "If-Range", etag}, 206, "bytes 0-0/2000", whole[:1]},
		{[]string{"Range", "bytes=0-0", "If-Range", `"other"`}, 200, "", whole},
	} {
		t.Run(fmt.Sprint(test.header), func(t *testing.T) {
			a := c.get(signed, test.header...)
			wantStatus(t, a, test.status)
			wantHeader(t, a, "Content-Range", test.crange)
			wantHeader(t, a, "Accept-Ranges", "bytes")
			if test.status != 416 {
				wantBody(t, a, test.want)
			}
		})
	}
}

func TestStatsCountTheRequestsOfEachBlob(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	path := c.addBlob(ecrtest.Random(1, 1<<20))
	dgst := digest.Digest(path[strings.LastIndexByte(path, '/')+1:])
	signed := c.signedURL(path)
	c.registry(http.MethodHead, path)
	c.get(signed)
	c.get(signed, "Range", "bytes=-10")
	c.get(signed, "Range", "bytes=9999999-")
	st := server.Stats()
	if want := (ecrtest.BlobStats{Redirects: 1, Requests: 3, Bytes: 1<<20 + 10}); st.Blobs[dgst] != want {
		t.Errorf("the blob: %+v, want %+v", st.Blobs[dgst], want)
	}
	if st.Requests[ecrtest.Blob] != 2 || st.Heads[ecrtest.Blob] != 1 || st.Requests[ecrtest.Storage] != 3 {
		t.Errorf("requests %v, HEADs %v", st.Requests, st.Heads)
	}
	server.ResetStats()
	st = server.Stats()
	if st.Bytes() != 0 || len(st.Requests) != 0 || st.Tokens != 0 || st.Blobs[dgst].Requests != 0 {
		t.Errorf("after ResetStats: %+v", st)
	}
}

// handToken returns a token that the API hands out in this process, without a network.
func handToken(server *ecrtest.Server) string {
	token := httptest.NewRequest(http.MethodPost, "/", nil)
	token.Header.Set("X-Amz-Target", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken")
	token.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDLARDERTEST/20260301/us-east-1/ecr/aws4_request")
	answered := httptest.NewRecorder()
	server.Registry().ServeHTTP(answered, token)
	_, after, _ := strings.Cut(answered.Body.String(), `"authorizationToken":"`)
	password, _, _ := strings.Cut(after, `"`)
	return password
}

// signed returns a request of a signed URL, for use without a network.
func signed(t testing.TB, server *ecrtest.Server, content ecrtest.Content) *http.Request {
	t.Helper()
	desc, err := server.AddBlob("app", content)
	if err != nil {
		t.Fatal(err)
	}
	server.SetStorageURL("http://storage.test")
	blob := httptest.NewRequest(http.MethodGet, "/v2/app/blobs/"+desc.Digest.String(), nil)
	blob.Header.Set("Authorization", "Basic "+handToken(server))
	answered := httptest.NewRecorder()
	server.Registry().ServeHTTP(answered, blob)
	if answered.Code != http.StatusTemporaryRedirect {
		t.Fatalf("GET blob: %d %s", answered.Code, answered.Body)
	}
	return httptest.NewRequest(http.MethodGet, answered.Header().Get("Location"), nil)
}

func TestBandwidthLimitsEachAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, rate := range []int64{1000, 1_000_000, 50_000_000} {
			server := ecrtest.New(ecrtest.Options{BytesPerSecond: rate})
			content := ecrtest.Random(1, rate/2)
			req := signed(t, server, content)
			started := time.Now()
			server.Storage().ServeHTTP(httptest.NewRecorder(), req)
			if took := time.Since(started); (took - 500*time.Millisecond).Abs() > time.Millisecond {
				t.Errorf("bytes of half a second at %d B/s took %v", rate, took)
			}
			server.SetBandwidth(0)
			started = time.Now()
			server.Storage().ServeHTTP(httptest.NewRecorder(), req)
			if took := time.Since(started); took != 0 {
				t.Errorf("without a limit they took %v", took)
			}
		}
	})
}

func TestLatencyComesBeforeEachAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := ecrtest.New(ecrtest.Options{})
		req := signed(t, server, ecrtest.Bytes([]byte("x")))
		server.SetLatency(80 * time.Millisecond)
		for range 2 {
			started := time.Now()
			server.Storage().ServeHTTP(httptest.NewRecorder(), req)
			if took := time.Since(started); took != 80*time.Millisecond {
				t.Errorf("answered after %v", took)
			}
		}
	})
}

// discard is a response that is thrown away.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) WriteHeader(int)             {}
func (d discard) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkStorage(b *testing.B) {
	const size = 16 << 20
	server := ecrtest.New(ecrtest.Options{})
	req := signed(b, server, ecrtest.Random(1, size))
	handler := server.Storage()
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		handler.ServeHTTP(discard{make(http.Header)}, req)
	}
}
