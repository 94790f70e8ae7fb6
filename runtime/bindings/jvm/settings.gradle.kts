// For a build of the AAR alone; an app that includes this folder as a module has its own.
pluginManagement {
    repositories {
        google()
        mavenCentral()
    }
    plugins { id("com.android.library") version "8.7.3" }
}

dependencyResolutionManagement { repositories { google() } }

rootProject.name = "embgemma"
