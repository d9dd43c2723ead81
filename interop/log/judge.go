// Judges a log with the Go project's own transparency-log code: one dumped to a
// folder, or that of a running node.
//
// Usage: judge FOLDER, where FOLDER was written by the example `dump` of the crate
// `peerproof-log`; or judge http://ADDRESS/log PEER [WITNESS...], with the peer ids of
// the node and of the witnesses that must have cosigned. Signatures are checked by sumdb/note, every tile and every
// proof by sumdb/tlog. Only the cosignature's format and the shorter tile paths
// of C2SP are spelled out here; Go's packages are older than they.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const tileHeight = 8

// cosigner verifies signatures of kind 4: eight bytes of time, then Ed25519.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return c.hash }
func (c cosigner) Verify(text, signature []byte) bool {
	if len(signature) != 8+ed25519.SignatureSize {
		return false
	}
	head := fmt.Sprintf("cosignature/v1\ntime %d\n", binary.BigEndian.Uint64(signature))
	return ed25519.Verify(c.key, append([]byte(head), text...), signature[8:])
}

func newCosigner(line string) (note.Verifier, error) {
	parts := strings.SplitN(line, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("key: expected name, hash and key")
	}
	hash, err := strconv.ParseUint(parts[1], 16, 32)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 33 || key[0] != 4 {
		return nil, errors.New("key: expected kind 4 and 32 bytes")
	}
	return cosigner{parts[0], uint32(hash), key[1:]}, nil
}

// fetch reads a file of a folder, or below a URL.
func fetch(base, path string) ([]byte, error) {
	if !strings.HasPrefix(base, "http://") {
		return os.ReadFile(filepath.Join(base, path))
	}
	answer, err := http.Get(base + "/" + path)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", path, answer.Status)
	}
	wanted, cache := "application/octet-stream", "public, max-age=31536000, immutable"
	if path == "checkpoint" {
		wanted, cache = "text/plain; charset=utf-8", "no-cache"
	}
	if got := answer.Header.Get("Content-Type"); got != wanted {
		return nil, fmt.Errorf("%s: content type %q, expected %q", path, got, wanted)
	}
	if got := answer.Header.Get("Cache-Control"); got != cache {
		return nil, fmt.Errorf("%s: cache control %q, expected %q", path, got, cache)
	}
	return io.ReadAll(io.LimitReader(answer.Body, 1<<20))
}

// files reads tiles as C2SP names them.
type files struct{ folder string }

func (f files) Height() int                     { return tileHeight }
func (f files) SaveTiles([]tlog.Tile, [][]byte) {}
func (f files) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", tileHeight), "tile/", 1)
		data, err := fetch(f.folder, path)
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

// open checks a note and returns the tree it states.
func open(base, path string, verifiers note.Verifiers, signatures int) (tlog.Tree, error) {
	var tree tlog.Tree
	text, err := fetch(base, path)
	if err != nil {
		return tree, err
	}
	opened, err := note.Open(text, verifiers)
	if err != nil {
		return tree, fmt.Errorf("%s: %w", path, err)
	}
	if len(opened.Sigs) != signatures || len(opened.UnverifiedSigs) != 0 {
		return tree, fmt.Errorf("%s: %d signatures hold, expected %d", path, len(opened.Sigs), signatures)
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 {
		return tree, fmt.Errorf("%s: expected three lines", path)
	}
	if tree.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return tree, err
	}
	tree.Hash, err = tlog.ParseHash(lines[2])
	return tree, err
}

func entries(folder string, size int64) ([][]byte, error) {
	var all [][]byte
	for from := int64(0); from < size; from += 1 << tileHeight {
		width := size - from
		if width > 1<<tileHeight {
			width = 1 << tileHeight
		}
		tile := tlog.Tile{H: tileHeight, L: -1, N: from >> tileHeight, W: int(width)}
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/data/", tileHeight), "tile/entries/", 1)
		data, err := fetch(folder, path)
		if err != nil {
			return nil, err
		}
		for len(data) > 0 {
			if len(data) < 2 || len(data)-2 < int(binary.BigEndian.Uint16(data)) {
				return nil, fmt.Errorf("%s: an entry goes on beyond its end", path)
			}
			length := int(binary.BigEndian.Uint16(data))
			all = append(all, data[2:2+length])
			data = data[2+length:]
		}
	}
	if int64(len(all)) != size {
		return nil, fmt.Errorf("%d entries, expected %d", len(all), size)
	}
	return all, nil
}

func judge(folder string) error {
	keys, err := os.ReadFile(filepath.Join(folder, "keys"))
	if err != nil {
		return err
	}
	lines := strings.Split(string(keys), "\n")
	log, err := note.NewVerifier(lines[0])
	if err != nil {
		return err
	}
	witness, err := newCosigner(lines[1])
	if err != nil {
		return err
	}
	verifiers := note.VerifierList(log, witness)
	tree, err := open(folder, "checkpoint", verifiers, 2)
	if err != nil {
		return err
	}
	earlier, err := open(folder, "earlier", verifiers, 1)
	if err != nil {
		return err
	}
	hashes := tlog.TileHashReader(tree, files{folder})
	growth, err := tlog.ProveTree(tree.N, earlier.N, hashes)
	if err != nil {
		return err
	}
	if err := tlog.CheckTree(growth, tree.N, tree.Hash, earlier.N, earlier.Hash); err != nil {
		return err
	}
	if err := judgeEntries(folder, tree, hashes); err != nil {
		return err
	}
	fmt.Printf("%d entries, growth from %d, log and witness signatures: all hold\n", tree.N, earlier.N)
	return nil
}

func judgeEntries(base string, tree tlog.Tree, hashes tlog.HashReader) error {
	all, err := entries(base, tree.N)
	if err != nil {
		return err
	}
	for index, entry := range all {
		proof, err := tlog.ProveRecord(tree.N, int64(index), hashes)
		if err != nil {
			return err
		}
		leaf := tlog.RecordHash(entry)
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, int64(index), leaf); err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
	}
	return nil
}

// keyOf is the Ed25519 key that a peer id holds: base58 of an identity multihash of a
// protobuf of 36 bytes, of which the last 32 are the key.
func keyOf(peer string) (ed25519.PublicKey, error) {
	const digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
	number := new(big.Int)
	for _, digit := range peer {
		at := strings.IndexRune(digits, digit)
		if at < 0 {
			return nil, fmt.Errorf("peer id %q: not base58", peer)
		}
		number.Add(number.Mul(number, big.NewInt(58)), big.NewInt(int64(at)))
	}
	data := number.FillBytes(make([]byte, 38))
	if !bytes.Equal(data[:6], []byte{0, 36, 8, 1, 18, 32}) {
		return nil, fmt.Errorf("peer id %q: not of an Ed25519 key", peer)
	}
	return ed25519.PublicKey(data[6:]), nil
}

func keyHash(name string, kind byte, key ed25519.PublicKey) uint32 {
	hash := sha256.Sum256(append(append([]byte(name+"\n"), kind), key...))
	return binary.BigEndian.Uint32(hash[:])
}

// live judges the log of a running node, which these witnesses must have cosigned.
func live(base, peer string, witnesses []string) error {
	key, err := keyOf(peer)
	if err != nil {
		return err
	}
	name := "peerproof.log/" + peer
	material := base64.StdEncoding.EncodeToString(append([]byte{1}, key...))
	log, err := note.NewVerifier(fmt.Sprintf("%s+%08x+%s", name, keyHash(name, 1, key), material))
	if err != nil {
		return err
	}
	all := []note.Verifier{log}
	for _, witness := range witnesses {
		key, err := keyOf(witness)
		if err != nil {
			return err
		}
		name := "peerproof.witness/" + witness
		all = append(all, cosigner{name, keyHash(name, 4, key), key})
	}
	tree, err := open(base, "checkpoint", note.VerifierList(all...), len(all))
	if err != nil {
		return err
	}
	hashes := tlog.TileHashReader(tree, files{base})
	if err := judgeEntries(base, tree, hashes); err != nil {
		return err
	}
	fmt.Printf("a running node: %d entries, its signature and %d cosignatures: all hold\n", tree.N, len(witnesses))
	return nil
}

func main() {
	var err error
	switch {
	case len(os.Args) >= 3 && strings.HasPrefix(os.Args[1], "http://"):
		err = live(os.Args[1], os.Args[2], os.Args[3:])
	case len(os.Args) == 2:
		err = judge(os.Args[1])
	default:
		fmt.Fprintln(os.Stderr, "usage: judge FOLDER | judge http://ADDRESS/log PEER [WITNESS...]")
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
