//go:build unix

package handoff

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// fdsAtOnce is how many descriptors go in one message; Linux takes 253.
const fdsAtOnce = 100

// Send passes the bundle to another process, which must be trusted, and returns
// when that has it.
func (b *Bundle) Send(c *net.UnixConn) error {
	fail := func(err error) error { return fmt.Errorf("handing over to another process: %w", err) }
	b.mu.Lock()
	defer b.mu.Unlock()
	var fds []int
	numbers := map[string]int{} // places in the row of descriptors
	for name, f := range b.files {
		fd, err := number(f)
		if err != nil {
			return fail(err)
		}
		numbers[name] = len(fds)
		fds = append(fds, fd)
	}
	data, err := json.Marshal(list{numbers, b.values})
	if err != nil {
		return fail(err)
	}
	if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...)); err != nil {
		return fail(err)
	}
	for len(fds) > 0 {
		n := min(len(fds), fdsAtOnce)
		if _, _, err := c.WriteMsgUnix([]byte{byte(n)}, unix.UnixRights(fds[:n]...), nil); err != nil {
			return fail(err)
		}
		fds = fds[n:]
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		return fail(fmt.Errorf("it did not take it: %w", err))
	}
	return nil
}

// ReceiveFrom takes a bundle that another process sends, which is gone soon after.
func ReceiveFrom(c *net.UnixConn) (*Bundle, error) {
	fail := func(err error) (*Bundle, error) { return nil, fmt.Errorf("taking over from another process: %w", err) }
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return fail(err)
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxList {
		return fail(errors.New("the list is too long"))
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(c, data); err != nil {
		return fail(err)
	}
	var l list
	if err := json.Unmarshal(data, &l); err != nil {
		return fail(err)
	}
	var fds []int
	b := New()
	err := func() error {
		for len(fds) < len(l.Files) {
			got, err := readFDs(c)
			if fds = append(fds, got...); err != nil {
				return err
			}
		}
		return nil
	}()
	for name, i := range l.Files {
		if err == nil && i >= 0 && i < len(fds) && fds[i] >= 0 {
			b.files[name] = os.NewFile(uintptr(fds[i]), name)
			fds[i] = -1
		}
	}
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	for k, v := range l.Values {
		b.values[k] = v
	}
	if err == nil {
		_, err = c.Write([]byte{1})
	}
	if err != nil {
		b.Close()
		return fail(err)
	}
	return b, nil
}

// readFDs reads the descriptors of one message.
func readFDs(c *net.UnixConn) ([]int, error) {
	oob := make([]byte, unix.CmsgSpace(4*fdsAtOnce))
	_, n, flags, _, err := c.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	for _, m := range msgs {
		got, errFDs := unix.ParseUnixRights(&m)
		fds, err = append(fds, got...), errors.Join(err, errFDs)
	}
	for _, fd := range fds {
		keepFromChildren(fd)
	}
	if err == nil && (len(fds) == 0 || flags&unix.MSG_CTRUNC != 0) {
		err = errors.New("descriptors are missing")
	}
	return fds, err
}
