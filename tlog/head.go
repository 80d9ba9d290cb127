package tlog

import (
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"
	ct "golang.org/x/mod/sumdb/tlog"
)

// A TreeHead is a signed statement of what a log holds.
type TreeHead struct {
	Size     int64
	Hash     ct.Hash
	Note     []byte    // the signed note
	Accepted time.Time // when this process's state folder took it on
}

// A Record is one verified record of a log.
type Record struct {
	ID   int64
	Data []byte
	Head TreeHead // the accepted tree head that covers it
}

// emptyHash is the hash of a tree without records: SHA-256 of nothing.
var emptyHash, _ = ct.TreeHash(0, nil)

// openHead checks a signed note and returns the tree head in it.
func openHead(msg []byte, v note.Verifier) (TreeHead, error) {
	n, err := note.Open(msg, note.VerifierList(v))
	if err != nil {
		return TreeHead{}, fmt.Errorf("%w (%s): %w", ErrSignature, v.Name(), err)
	}
	tree, err := ct.ParseTree([]byte(n.Text))
	if err != nil {
		return TreeHead{}, fmt.Errorf("signed note of log %s holds no tree head: %w", v.Name(), err)
	}
	if tree.N == 0 && tree.Hash != emptyHash {
		return TreeHead{}, fmt.Errorf("tree head of log %s states a wrong hash for an empty tree", v.Name())
	}
	return TreeHead{Size: tree.N, Hash: tree.Hash, Note: msg}, nil
}

// signHead returns the signed tree head of a tree.
func signHead(tree ct.Tree, s note.Signer) (TreeHead, error) {
	msg, err := note.Sign(&note.Note{Text: string(ct.FormatTree(tree))}, s)
	if err != nil {
		return TreeHead{}, fmt.Errorf("signing a tree head of log %s: %w", s.Name(), err)
	}
	return TreeHead{Size: tree.N, Hash: tree.Hash, Note: msg}, nil
}
