import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.Set;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;
import java.util.zip.ZipOutputStream;
import org.objectweb.asm.ClassReader;
import org.objectweb.asm.ClassWriter;
import org.objectweb.asm.Opcodes;
import org.objectweb.asm.tree.AbstractInsnNode;
import org.objectweb.asm.tree.ClassNode;
import org.objectweb.asm.tree.MethodInsnNode;
import org.objectweb.asm.tree.MethodNode;

/**
 * Says of each call whether its method is an interface's. Class files need it and dex has no word for it, so what dex2jar made lacks it.
 *
 * java -cp 'build/jvm/dex/*' tools/MarkInterfaces.java IN.jar OUT.jar
 */
public final class MarkInterfaces {
    public static void main(String[] given) throws Exception {
        try (ZipFile jar = new ZipFile(given[0]); ZipOutputStream out = new ZipOutputStream(Files.newOutputStream(Path.of(given[1])))) {
            Set<String> interfaces = new HashSet<>();
            for (ZipEntry entry : (Iterable<ZipEntry>) jar.stream().map(ZipEntry.class::cast)::iterator) {
                ClassReader reader = read(jar, entry);
                if (reader != null && (reader.getAccess() & Opcodes.ACC_INTERFACE) != 0) interfaces.add(reader.getClassName());
            }
            for (ZipEntry entry : (Iterable<ZipEntry>) jar.stream().map(ZipEntry.class::cast)::iterator) {
                ClassReader reader = read(jar, entry);
                if (reader == null) continue;
                ClassNode node = new ClassNode();
                reader.accept(node, 0);
                for (MethodNode method : node.methods) {
                    for (AbstractInsnNode instruction : method.instructions) {
                        if (instruction instanceof MethodInsnNode call && !call.itf) call.itf = interfaces.contains(call.owner) || isJavas(call.owner);
                    }
                }
                ClassWriter writer = new ClassWriter(0);
                node.accept(writer);
                out.putNextEntry(new ZipEntry(entry.getName()));
                out.write(writer.toByteArray());
                out.closeEntry();
            }
        }
    }

    private static ClassReader read(ZipFile jar, ZipEntry entry) throws Exception {
        if (!entry.getName().endsWith(".class")) return null;
        try (InputStream stream = jar.getInputStream(entry)) {
            return new ClassReader(stream);
        }
    }

    private static boolean isJavas(String owner) {
        if (!owner.startsWith("java/")) return false;
        try {
            return Class.forName(owner.replace('/', '.'), false, null).isInterface();
        } catch (ClassNotFoundException error) {
            return false;
        }
    }
}
