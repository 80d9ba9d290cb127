package main

import (
	"log/slog"

	"example.org/upkeep/builder"
)

// pages are the service's pages; they need the service, which needs them.
type pages struct{ builder.Pages }

func (p *pages) hook() builder.Pages { return nil }

func (p *pages) init(*builder.Service, *slog.Logger) {}
