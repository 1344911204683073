/* The header of a PE file with one section (Microsoft, PE Format; UEFI 2.10, 2.1.1), and a place for relocations, of which there are
 * none: some firmware starts no program without that section. */
#ifdef __x86_64__
#define MACHINE 0x8664
#else
#define MACHINE 0xaa64
#endif
        .section .header, "a"
        .ascii  "MZ"
        .zero   58
        .long   pe - .header
pe:     .ascii  "PE\0\0"
        .short  MACHINE
        .short  2                       /* sections */
        .long   0, 0, 0                 /* time, symbols */
        .short  sections - optional
        .short  0x0206                  /* executable, without line numbers and debug information */
optional:
        .short  0x20b                   /* PE32+ */
        .byte   0, 0
        .long   text_size               /* code */
        .long   512                     /* other data: the relocations */
        .long   0
        .long   start                   /* entry */
        .long   0x1000                  /* code begins */
        .quad   0                       /* preferred base: none */
        .long   0x1000                  /* alignment of sections in memory */
        .long   0x200                   /* alignment of sections in the file */
        .short  0, 0, 0, 0, 0, 0
        .long   0
        .long   image_size
        .long   0x200                   /* headers */
        .long   0
        .short  10                      /* EFI application */
        .short  0x100                   /* runs where data are not executable */
        .quad   0, 0, 0, 0
        .long   0
        .long   6                       /* directories */
        .quad   0, 0, 0, 0, 0
        .long   reloc, 12
sections:
        .ascii  ".text\0\0\0"
        .long   text_size, 0x1000, text_size, 0x200
        .long   0, 0, 0
        .long   0x60000020              /* code, executable, readable */
        .ascii  ".reloc\0\0"
        .long   12, reloc, 512, reloc_at
        .long   0, 0, 0
        .long   0x42000040              /* data, discardable, readable */

        .section .reloc, "a"
        .long   0x1000, 12, 0           /* a block without effect: type 0 */
        .zero   500

        .section .note.GNU-stack, "", %progbits
