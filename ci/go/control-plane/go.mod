module podshaper.dev/control-plane

go 1.26.0
