// Package buckettest is a small S3 in memory that fails as tests want it to.
package buckettest

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Fault is what happens to a request instead of, or beside, its answer. The zero value is none.
type Fault struct {
	// Status and Code are those of an error.
	Status int
	Code   string
	// Hold delays the answer until it is closed, or the client leaves.
	Hold <-chan struct{}
	// Cut is after how many bytes of a body the connection is cut; Stall after how many the body stops, until the client
	// leaves. 0 means never.
	Cut, Stall int64
	// Wrong has the bytes of the body be others.
	Wrong bool
	// Unconditional ignores conditions.
	Unconditional bool
}

// Request is a request to the store.
type Request struct {
	Method string
	Name   string // of the object
	Query  url.Values
	Header http.Header
}

// Store is a store with one bucket, "images". It is safe for concurrent use.
type Store struct {
	*httptest.Server

	mu       sync.Mutex // guards what follows
	objects  map[string][]byte
	uploads  map[string]map[int][]byte
	requests []Request
	fault    func(Request) Fault
}

// Bucket is the name of the bucket.
const Bucket = "images"

// Start starts a store that runs until the test ends.
func Start(t testing.TB) *Store {
	t.Helper()
	s := &Store{
		objects: make(map[string][]byte), uploads: make(map[string]map[int][]byte),
		fault: func(Request) Fault { return Fault{} },
	}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// Fail has requests fail from now on. It is called for each.
func (s *Store) Fail(fault func(Request) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

// Objects returns the objects by their names.
func (s *Store) Objects() map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.objects)
}

// Put puts an object, as somebody else who may write the bucket does.
func (s *Store) Put(name string, content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[name] = content
}

// Delete removes an object.
func (s *Store) Delete(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, name)
}

// Requests returns the requests that came, those of one method if it is not empty, and forgets none.
func (s *Store) Requests(method string) []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.requests), func(r Request) bool { return method != "" && r.Method != method })
}

// ServeHTTP is for http.Handler.
func (s *Store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, isObject := strings.CutPrefix(r.URL.Path, "/"+Bucket+"/")
	isBucket := !isObject && r.URL.Path == "/"+Bucket && r.Method == http.MethodHead
	if !isObject && !isBucket {
		refuse(w, http.StatusNotFound, "NoSuchBucket")
		return
	}
	req := Request{Method: r.Method, Name: name, Query: r.URL.Query(), Header: r.Header}
	s.mu.Lock()
	s.requests = append(s.requests, req)
	fault := s.fault
	s.mu.Unlock()
	f := fault(req)
	if f.Hold != nil {
		content, err := io.ReadAll(r.Body) // the server sees only then that a client leaves
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(content))
		select {
		case <-f.Hold:
		case <-r.Context().Done():
			return
		}
	}
	if f.Status != 0 {
		_, _ = io.Copy(io.Discard, r.Body)
		refuse(w, f.Status, f.Code)
		return
	}
	if isBucket {
		return
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		s.send(w, r, name, f)
	case http.MethodPut:
		s.put(w, r, name, f)
	case http.MethodPost:
		s.post(w, r, name, f)
	case http.MethodDelete:
		s.mu.Lock()
		delete(s.uploads, req.Query.Get("uploadId"))
		s.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	default:
		refuse(w, http.StatusMethodNotAllowed, "MethodNotAllowed")
	}
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>as the test wants it</Message></Error>", code)
}

// send answers GET and HEAD.
func (s *Store) send(w http.ResponseWriter, r *http.Request, name string, f Fault) {
	s.mu.Lock()
	content, ok := s.objects[name]
	s.mu.Unlock()
	if !ok {
		refuse(w, http.StatusNotFound, "NoSuchKey")
		return
	}
	if f.Wrong {
		content = slices.Clone(content)
		for i := range content {
			content[i] ^= 0xff
		}
	}
	from, to := int64(0), int64(len(content))
	if text, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok && to > 0 {
		first, last, _ := strings.Cut(text, "-")
		from, _ = strconv.ParseInt(first, 10, 64)
		end, err := strconv.ParseInt(last, 10, 64)
		if err == nil {
			to = min(to, end+1)
		}
		if from >= int64(len(content)) {
			refuse(w, http.StatusRequestedRangeNotSatisfiable, "InvalidRange")
			return
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(content)))
	}
	w.Header().Set("Content-Length", strconv.FormatInt(to-from, 10))
	if w.Header().Get("Content-Range") != "" {
		w.WriteHeader(http.StatusPartialContent)
	}
	if r.Method == http.MethodHead {
		return
	}
	body := content[from:to]
	switch {
	case f.Cut > 0 && f.Cut < int64(len(body)):
		_, _ = w.Write(body[:f.Cut])
		panic(http.ErrAbortHandler)
	case f.Stall > 0 && f.Stall < int64(len(body)):
		_, _ = w.Write(body[:f.Stall])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	default:
		_, _ = w.Write(body)
	}
}

// put answers PUT of an object or of a part.
func (s *Store) put(w http.ResponseWriter, r *http.Request, name string, f Fault) {
	content, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has left
	}
	if sum := r.Header.Get("X-Amz-Checksum-Sha256"); sum != "" {
		if own := sha256.Sum256(content); sum != base64.StdEncoding.EncodeToString(own[:]) {
			refuse(w, http.StatusBadRequest, "BadDigest")
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if upload := r.URL.Query().Get("uploadId"); upload != "" {
		number, _ := strconv.Atoi(r.URL.Query().Get("partNumber"))
		if s.uploads[upload] == nil {
			refuse(w, http.StatusNotFound, "NoSuchUpload")
			return
		}
		s.uploads[upload][number] = content
		w.Header().Set("ETag", fmt.Sprintf(`"part-%d"`, number))
		return
	}
	if s.mayNotReplace(r, name, f) {
		refuse(w, http.StatusPreconditionFailed, "PreconditionFailed")
		return
	}
	s.objects[name] = content
	w.Header().Set("ETag", `"whole"`)
}

// mayNotReplace reports whether an object is there and the request is for one that is not. The caller has locked s.mu.
func (s *Store) mayNotReplace(r *http.Request, name string, f Fault) bool {
	_, there := s.objects[name]
	return there && r.Header.Get("If-None-Match") == "*" && !f.Unconditional
}

// post begins and completes uploads in parts.
func (s *Store) post(w http.ResponseWriter, r *http.Request, name string, f Fault) {
	_, _ = io.Copy(io.Discard, r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.URL.Query().Has("uploads") {
		id := strconv.Itoa(len(s.requests))
		s.uploads[id] = make(map[int][]byte)
		answer(w, struct {
			XMLName  xml.Name `xml:"InitiateMultipartUploadResult"`
			UploadID string   `xml:"UploadId"`
		}{UploadID: id})
		return
	}
	id := r.URL.Query().Get("uploadId")
	parts := s.uploads[id]
	switch {
	case parts == nil:
		refuse(w, http.StatusNotFound, "NoSuchUpload")
		return
	case s.mayNotReplace(r, name, f):
		refuse(w, http.StatusPreconditionFailed, "PreconditionFailed")
		return
	}
	var content []byte
	for _, number := range slices.Sorted(maps.Keys(parts)) {
		content = append(content, parts[number]...)
	}
	s.objects[name] = content
	delete(s.uploads, id)
	answer(w, struct {
		XMLName xml.Name `xml:"CompleteMultipartUploadResult"`
		ETag    string
	}{ETag: `"whole"`})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/xml")
	_ = xml.NewEncoder(w).Encode(v)
}

// Uploads returns how many uploads in parts have begun and not ended.
func (s *Store) Uploads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.uploads)
}
