package admin

import (
	"embed"
	"net/http"
	"path"
)

// addPage adds the status page: a few files, and the stream of events that keeps them
// up to date.
func addPage(mux *http.ServeMux, events http.Handler) {
	mux.Handle("GET /{$}", protect(http.HandlerFunc(serveIndex)))
	mux.Handle("GET /page/{file}", protect(http.HandlerFunc(servePageFile)))
	mux.Handle("GET /api/v1/events", protect(events))
}

// protect adds the headers that keep other sites and injected text from using the page.
func protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
			"base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store") // a page of another version does not read these events
		next.ServeHTTP(w, r)
	})
}

//go:embed page/*.html page/*.css page/*.js page/*.svg
var pageFiles embed.FS

func serveIndex(w http.ResponseWriter, r *http.Request) {
	sendFile(w, r, "index.html", "text/html; charset=utf-8")
}

func servePageFile(w http.ResponseWriter, r *http.Request) {
	mediaType, ok := map[string]string{
		".css": "text/css; charset=utf-8",
		".js":  "text/javascript; charset=utf-8",
		".svg": "image/svg+xml",
	}[path.Ext(r.PathValue("file"))]
	if !ok {
		http.NotFound(w, r)
		return
	}
	sendFile(w, r, r.PathValue("file"), mediaType)
}

func sendFile(w http.ResponseWriter, r *http.Request, name, mediaType string) {
	w.Header().Set("Content-Type", mediaType)
	http.ServeFileFS(w, r, pageFiles, path.Join("page", name))
}
