// Upkeep-build builds Go programs reproducibly from the module proxy and
// records each result in a transparency log.
package main

import (
	"example.org/upkeep/builder/sandbox"
	"example.org/upkeep/internal/cli"
)

func main() {
	sandbox.Reexec()
	program().Main()
}

func program() *cli.Program {
	return &cli.Program{
		Name:  "upkeep-build",
		Short: "A build service for Go programs with a transparency log.",
		Example: `upkeep-build keygen -key build.key build.example.org
upkeep-build serve -key build.key -state /var/lib/upkeep-build`,
		Commands: []*cli.Command{serveCommand(), keygenCommand(), verifyCommand(), fsckCommand(), sandboxCommand(), configDefaultCommand(), configCheckCommand()},
	}
}
