"""The playground's etcd and watch cache: objects, their history, and the indexes over them."""
