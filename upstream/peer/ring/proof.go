package ring

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"time"
)

// ErrStranger says that the other end of a connection does not have one of the ring's keys.
var ErrStranger = errors.New("the other end does not have the cluster's key")

const (
	protocol = "larder-peer/1" // of ALPN: both ends of a connection speak this version
	exporter = "EXPORTER-larder-peer-proof"
	macSize  = sha256.Size
	// certLife is how long a process' certificate is valid. Nobody checks it: the proof of the key
	// takes the place of all that a certificate says.
	certLife = 10 * 365 * 24 * time.Hour
)

// The roles of the two ends: the proof of one is not that of the other, so it cannot be sent back.
const (
	ofClient = "client"
	ofServer = "server"
)

// Identity is what a process shows in TLS: a certificate that it has made for itself.
type Identity struct{ cert tls.Certificate }

// NewIdentity makes one.
func NewIdentity() (Identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Identity{}, fmt.Errorf("make a certificate for peers: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "larder peer"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(certLife),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return Identity{}, fmt.Errorf("make a certificate for peers: %w", err)
	}
	return Identity{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}, nil
}

// Dialer connects to other nodes. It is safe for concurrent use.
type Dialer struct {
	Ring *Ring
	// Connect connects to an address over TCP. Nil means that of a net.Dialer.
	Connect func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Dial connects to an address, and returns when both ends have proved a key of the ring. ctx bounds
// all of it. The error is [ErrStranger] if the other end does not have one.
func (d *Dialer) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	connect := d.Connect
	if connect == nil {
		connect = new(net.Dialer).DialContext
	}
	raw, err := connect(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{protocol},
		InsecureSkipVerify: true, // the proof of the key takes the certificate's place
	})
	if err := within(ctx, conn, d.Ring.proveAsClient); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to the peer %s: %w", addr, err), raw.Close())
	}
	return conn, nil
}

// within makes a handshake and a proof, and ends both when ctx does.
func within(ctx context.Context, conn *tls.Conn, prove func(*tls.Conn) error) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err := conn.HandshakeContext(ctx)
	if err == nil {
		err = prove(conn)
	}
	switch {
	case !stop():
		return context.Cause(ctx) // the deadline is set, or about to be
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return ErrStranger // the other end hangs up on one whose proof it does not accept
	}
	return err
}

// mac is what one end sends to prove a key: it is bound to the connection and to its role.
func mac(conn *tls.Conn, key Key, role string) ([]byte, error) {
	state := conn.ConnectionState()
	material, err := state.ExportKeyingMaterial(exporter, nil, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("prove the cluster's key: %w", err)
	}
	h := hmac.New(sha256.New, key.derive("larder peers: proof"))
	_, _ = io.WriteString(h, role) // never fails
	h.Write(material)
	return h.Sum(nil), nil
}

// proveAsClient sends a proof for each key of the ring, and waits for that of the server.
func (r *Ring) proveAsClient(conn *tls.Conn) error {
	keys := r.all()
	message := []byte{byte(len(keys))}
	for _, key := range keys {
		proof, err := mac(conn, key, ofClient)
		if err != nil {
			return err
		}
		message = append(message, proof...)
	}
	if _, err := conn.Write(message); err != nil {
		return err
	}
	answer := make([]byte, macSize)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if key, err := r.keyOf(conn, answer, ofServer); err != nil || key == nil {
		return errors.Join(ErrStranger, err)
	}
	return nil
}

// proveAsServer waits for the client's proofs, and proves the first key that both have. It sends
// nothing to a client that has proved none.
func (r *Ring) proveAsServer(conn *tls.Conn) error {
	n := make([]byte, 1)
	if _, err := io.ReadFull(conn, n); err != nil {
		return err
	}
	if n[0] == 0 || n[0] > maxKeys {
		return ErrStranger
	}
	proofs := make([]byte, int(n[0])*macSize)
	if _, err := io.ReadFull(conn, proofs); err != nil {
		return err
	}
	for ; len(proofs) > 0; proofs = proofs[macSize:] {
		key, err := r.keyOf(conn, proofs[:macSize], ofClient)
		if err != nil {
			return err
		}
		if key == nil {
			continue
		}
		proof, err := mac(conn, *key, ofServer)
		if err != nil {
			return err
		}
		_, err = conn.Write(proof)
		return err
	}
	return ErrStranger
}

// keyOf returns the key of the ring that a proof is for, or nil.
func (r *Ring) keyOf(conn *tls.Conn, proof []byte, role string) (*Key, error) {
	for _, key := range r.all() {
		want, err := mac(conn, key, role)
		if err != nil {
			return nil, err
		}
		if hmac.Equal(want, proof) {
			return &key, nil
		}
	}
	return nil, nil
}
