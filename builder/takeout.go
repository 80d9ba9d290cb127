package builder

import (
	"fmt"
	"io"
	"os"
	"runtime"

	"example.org/upkeep/builder/spec"
)

// takeOut copies the binary out of the build's folder: one regular file of
// bounded size, no link followed, never run. Its build information must be
// that of the spec.
func (b *build) takeOut() (built, error) {
	root, err := os.OpenRoot(b.dir)
	if err != nil {
		return built{}, err
	}
	defer root.Close()
	name := "gopath/bin/"
	if b.spec.GOOS != runtime.GOOS || b.spec.GOARCH != runtime.GOARCH {
		name += b.spec.GOOS + "_" + b.spec.GOARCH + "/"
	}
	name += b.spec.Command() + b.spec.Exe()
	before, err := root.Lstat(name)
	if err != nil {
		return built{}, temporary("The build ended without an error and left no binary.", err)
	}
	if !before.Mode().IsRegular() || before.Size() == 0 {
		return built{}, permanent("What the build left is not a regular file.")
	}
	if before.Size() > int64(b.s.cfg.MaxBinary)<<20 {
		return built{}, permanent(fmt.Sprintf("The binary is %d bytes long; this server keeps at most %d MiB.", before.Size(), b.s.cfg.MaxBinary))
	}
	f, err := root.Open(name)
	if err != nil {
		return built{}, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !os.SameFile(before, fi) {
		return built{}, temporary("The binary changed while it was read.", err)
	}
	bi, err := readBuildInfo(f)
	if err != nil {
		return built{}, permanent("The binary holds no build information: " + printable(err.Error()))
	}
	if err := spec.CheckBuildInfo(bi, b.spec); err != nil {
		return built{}, notFound("The go command built something else than asked for: " + printable(err.Error()) + ".")
	}
	if err := b.verifyModules(bi); err != nil {
		return built{}, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return built{}, err
	}
	d, err := b.s.blobs.put(io.LimitReader(f, before.Size()))
	if err != nil {
		return built{}, err
	}
	if d.Size() != before.Size() {
		return built{}, temporary("The binary changed while it was read.", nil)
	}
	return built{record: spec.Record{Spec: b.spec, Size: d.Size(), Sum: d.Sum()}, sha256: d.SHA256()}, nil
}
