from opsapi.cli import main

main()
