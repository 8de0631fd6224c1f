package config

// TLS are absolute paths of PEM files. The zero value means plain HTTP. It is about Listen
// alone.
type TLS struct {
	// Cert has the certificate and Key its private key. Neither is set without the other.
	Cert, Key string
	// ClientCA has the authorities of the certificates that clients must have; "" means that
	// they need none. It is not set without Cert.
	ClientCA string
}

// On reports whether clients are served over HTTPS.
func (t TLS) On() bool { return t.Cert != "" }

// missing returns the key of tls that is missing, and why it is expected; or "".
func (t TLS) missing() (key, why string) {
	switch {
	case t.Cert == "" && t.ClientCA != "":
		return "cert", "expected together with client_ca"
	case t.Cert == "" && t.Key != "":
		return "cert", "expected together with key"
	case t.Cert != "" && t.Key == "":
		return "key", "expected together with cert"
	}
	return "", ""
}

// ClientAuth says which clients are served, whatever the upstream.
type ClientAuth struct {
	// Htpasswd is the absolute path of a file with user names and bcrypt hashes; "" means that
	// clients need no password.
	Htpasswd string
}

// On reports whether clients need a user name and a password.
func (a ClientAuth) On() bool { return a.Htpasswd != "" }
